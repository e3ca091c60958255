import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after } from 'node:test'

import { Sandbox, Template } from './noted.js'

// The SDK knows of the platform what these say, over http or https; the tests' own requests go to
// its listener of http.
for (const name of ['E2B_API_KEY', 'CASEMATE_TEST_URL', 'CASEMATE_TEST_REGISTRY']) {
  if (!process.env[name]) throw new Error(`${name} is not set: see scripts/test`)
}

const made = []

/** A sandbox that is killed when the tests are over. */
export async function create(...args) {
  const sandbox = await Sandbox.create(...args)
  made.push(sandbox)
  return sandbox
}

let one
/** One sandbox for all tests that leave it usable. */
export function shared() {
  one ??= create({ timeoutMs: 1_800_000 })
  return one
}

const templates = new Set()

export const freshName = () => `t-js-${randomBytes(6).toString('hex')}`

/** Builds a template that is deleted when the tests are over; what was said meanwhile is in `lines`. */
export async function build(template, name = freshName(), options = {}) {
  const lines = []
  const onBuildLogs = (entry) => lines.push(entry.message)
  const info = await Template.build(template, name, { onBuildLogs, ...options })
  templates.add(info.templateId)
  return { ...info, lines }
}

/** A sandbox of a template that is built for it. */
export async function started(template, name, options) {
  return create((await build(template, name, options)).templateId)
}

after(async () => {
  await Promise.all(made.map((sandbox) => sandbox.kill()))
  await Promise.all([...templates].map((id) => Sandbox.deleteSnapshot(id)))
})

export const freshPath = () => `/home/user/t-${randomBytes(6).toString('hex')}`

export async function until(what, probe, seconds = 10) {
  const end = Date.now() + 1000 * seconds
  for (;;) {
    const answer = await probe()
    if (answer) return answer
    assert.ok(Date.now() < end, `${what} did not happen within ${seconds} s`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
