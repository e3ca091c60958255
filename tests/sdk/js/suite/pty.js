import assert from 'node:assert/strict'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { shared } from '../setup.js'

const bytes = (text) => new TextEncoder().encode(text)

function screen() {
  const parts = []
  return { onData: (data) => parts.push(Buffer.from(data)), text: () => Buffer.concat(parts).toString() }
}

test('a terminal is one, and can be resized', async () => {
  const { pty } = await shared()
  const shown = screen()
  const options = { cols: 80, rows: 24, onData: shown.onData, envs: { MARK: 'm1' }, cwd: '/tmp' }
  const handle = await pty.create(options)
  await pty.resize(handle.pid, { cols: 132, rows: 50 })
  await pty.sendInput(handle.pid, bytes('tty; stty size; echo $TERM-$MARK-$PWD; exit\n'))
  await handle.wait()
  for (const part of ['/dev/pts/', '50 132', 'xterm-256color-m1-/tmp']) {
    assert.ok(shown.text().includes(part), shown.text())
  }
})

test('connect sees further output', async () => {
  const { pty } = await shared()
  const handle = await pty.create({ cols: 80, rows: 24, onData: () => {} })
  await handle.disconnect()
  const shown = screen()
  const other = await pty.connect(handle.pid, { onData: shown.onData })
  await pty.sendInput(handle.pid, bytes('echo $((40+2)); exit\n'))
  await other.wait()
  assert.ok(shown.text().includes('42'), shown.text())
})

test('kill ends a terminal', async () => {
  const { pty } = await shared()
  const handle = await pty.create({ cols: 80, rows: 24, onData: () => {} })
  assert.equal(await pty.kill(handle.pid), true)
  await assert.rejects(handle.wait(), e2b.CommandExitError)
  assert.equal(await pty.kill(handle.pid), false)
})
