// One process for the whole suite, so that the last test can say what nobody called.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { NOT_COVERED_YET, called, publicMethods } from './noted.js'
import './suite/sandbox.js'
import './suite/commands.js'
import './suite/pty.js'
import './suite/files.js'
import './suite/git.js'
import './suite/network.js'
import './suite/pause.js'
import './suite/snapshots.js'
import './suite/builder.js'
import './suite/templates.js'

test('every public method is called or listed', () => {
  const methods = publicMethods()
  assert.ok(methods.size > 80, `only ${methods.size} found: did the package change?`)
  const missing = [...methods].filter((name) => !called.has(name) && !(name in NOT_COVERED_YET))
  assert.deepEqual(missing, [])
})

test('the list of what is not covered is true', () => {
  const methods = publicMethods()
  const listed = Object.keys(NOT_COVERED_YET)
  assert.deepEqual(listed.filter((name) => !methods.has(name)), [], 'not in the package')
  assert.deepEqual(listed.filter((name) => called.has(name)), [], 'called by a test')
})
