// Which public methods the SDK has, and which of them the tests used.
//
// The list comes from the package's own type declarations: the classes exist only as types, and at
// run time nothing tells a private method from a public one. Objects of these classes are handed to
// the tests as proxies that note what is asked of them and pass it on to the real object, so that
// what the SDK calls by itself does not count.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

import * as e2b from 'e2b'

const LABELS = [
  'Sandbox',
  'Commands',
  'CommandHandle',
  'Pty',
  'Filesystem',
  'WatchHandle',
  'Git',
  'SandboxPaginator',
  'SnapshotPaginator',
  'TemplateBase',
]
const PARENTS = { Sandbox: 'SandboxApi', SandboxPaginator: 'Paginator', SnapshotPaginator: 'Paginator' }

// Public methods that no test calls yet, with the title of the issue that brings them.
export const NOT_COVERED_YET = {}

export const called = new Set()

/** Every public method and field, such as `Git.clone` or `static Sandbox.list`. */
export function publicMethods() {
  const main = createRequire(import.meta.url).resolve('e2b')
  const text = readFileSync(path.join(path.dirname(main), 'index.d.ts'), 'utf8')
  const methods = new Set()
  for (const label of LABELS) {
    for (const name of [label, PARENTS[label]].filter(Boolean)) {
      for (const member of members(text, name)) {
        methods.add(member.isStatic ? `static ${label}.${member.name}` : `${label}.${member.name}`)
      }
    }
  }
  return methods
}

function members(text, name) {
  const body = text.match(new RegExp(`declare (?:abstract )?class ${name}\\b[^{]*\\{\\n(.*?)\\n\\}\\n`, 's'))
  if (!body) throw new Error(`the package declares no class ${name}`)
  const found = []
  for (const line of body[1].replace(/\/\*\*.*?\*\//gs, '').split('\n')) {
    const match = line.match(
      /^ {2}(?! )(private |protected )?(static )?(?:abstract )?(?:readonly )?(?:get )?(\w+)[?]?[(<:;]/
    )
    if (match && !match[1] && match[3] !== 'constructor') {
      found.push({ name: match[3], isStatic: Boolean(match[2]) })
    }
  }
  return found
}

/** A proxy for an object of the SDK; everything else is given back as it is. */
export function noted(value) {
  if (value instanceof Promise) return value.then(noted)
  if (Array.isArray(value) || value === null || typeof value !== 'object') return value
  const label = value.constructor?.name
  return LABELS.includes(label) ? watched(value, label) : value
}

const targets = new WeakMap()

function watched(target, label) {
  const proxy = new Proxy(target, {
    get(_, name) {
      const value = target[name]
      if (typeof name === 'string') called.add(`${label}.${name}`)
      if (typeof value === 'function') return (...args) => noted(value.apply(target, args))
      return noted(value)
    },
  })
  targets.set(proxy, target)
  return proxy
}

/** A class itself, whose static methods are noted too; the SDK is handed the real objects. */
function watchedClass(target, label) {
  return new Proxy(target, {
    get(_, name) {
      const value = target[name]
      if (typeof name === 'string') called.add(`static ${label}.${name}`)
      if (typeof value !== 'function') return value
      return (...args) => noted(value.apply(target, args.map((arg) => targets.get(arg) ?? arg)))
    },
    apply: (_, self, args) => noted(target.apply(self, args)),
  })
}

export const Sandbox = watchedClass(e2b.Sandbox, 'Sandbox')
export const Template = watchedClass(e2b.Template, 'TemplateBase')
