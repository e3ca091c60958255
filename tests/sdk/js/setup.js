import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after } from 'node:test'

import { Sandbox } from './noted.js'

// The SDK knows of the platform what these say, over http or https; the tests' own requests go to
// its listener of http.
for (const name of ['E2B_API_KEY', 'CASEMATE_TEST_URL']) {
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

after(() => Promise.all(made.map((sandbox) => sandbox.kill())))

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
