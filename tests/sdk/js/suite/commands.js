import assert from 'node:assert/strict'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { shared, until } from '../setup.js'

test('run gives output and exit code', async () => {
  const sandbox = await shared()
  const seen = []
  const result = await sandbox.commands.run('echo out; echo err >&2', {
    onStdout: (text) => seen.push(`out ${text}`),
    onStderr: (text) => seen.push(`err ${text}`),
  })
  assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['out\n', 'err\n', 0])
  assert.deepEqual(seen.sort(), ['err err\n', 'out out\n'])
  await assert.rejects(sandbox.commands.run('echo no >&2; exit 7'), (error) => {
    assert.ok(error instanceof e2b.CommandExitError)
    assert.deepEqual([error.exitCode, error.stderr], [7, 'no\n'])
    return true
  })
})

test('run as asked', async () => {
  const { commands } = await shared()
  assert.equal((await commands.run('whoami; pwd')).stdout, 'user\n/home/user\n')
  assert.equal((await commands.run('whoami', { user: 'root' })).stdout, 'root\n')
  assert.equal((await commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
  assert.equal((await commands.run('echo $A', { envs: { A: 'ü 1' } })).stdout, 'ü 1\n')
  await assert.rejects(commands.run('true', { cwd: '/no/where' }), e2b.InvalidArgumentError)
  await assert.rejects(commands.run('true', { user: 'nobody-here' }), e2b.AuthenticationError)
})

test('a timeout kills', async () => {
  const { commands } = await shared()
  await assert.rejects(commands.run('sleep 4243', { timeoutMs: 1000 }), e2b.TimeoutError)
  await until('the kill', async () => {
    const processes = await commands.list()
    return !processes.some((process) => process.args.some((arg) => arg.includes('sleep 4243')))
  })
})

test('list, connect and kill a background command', async () => {
  const { commands } = await shared()
  const handle = await commands.run('sleep 3001', { background: true })
  const listed = (await commands.list()).find((process) => process.pid === handle.pid)
  assert.deepEqual([listed.cmd, listed.args], ['/bin/bash', ['-l', '-c', 'sleep 3001']])
  const other = await commands.connect(handle.pid)
  assert.equal(await commands.kill(handle.pid), true)
  await assert.rejects(other.wait(), e2b.CommandExitError)
  await assert.rejects(handle.wait(), e2b.CommandExitError)
  assert.equal(await commands.kill(handle.pid), false)
  await assert.rejects(commands.connect(999_999), e2b.NotFoundError)
})

test('a handle has what came out', async () => {
  const { commands } = await shared()
  const handle = await commands.run('echo a; echo b >&2; exit 3', { background: true })
  await assert.rejects(handle.wait(), e2b.CommandExitError)
  assert.deepEqual([handle.stdout, handle.stderr, handle.exitCode], ['a\n', 'b\n', 3])
  assert.ok(handle.error === undefined || handle.error.includes('3'))
  const killed = await commands.run('sleep 3001', { background: true })
  assert.equal(await killed.kill(), true)
  await assert.rejects(killed.wait(), e2b.CommandExitError)
})

test('disconnect leaves the command running', async () => {
  const { commands } = await shared()
  const handle = await commands.run('sleep 3002', { background: true })
  await handle.disconnect()
  assert.ok((await commands.list()).some((process) => process.pid === handle.pid))
  assert.equal(await commands.kill(handle.pid), true)
})

test('stdin by pid and by handle', async () => {
  const { commands } = await shared()
  assert.equal(commands.supportsStdinClose, true)
  const first = await commands.run('cat', { background: true, stdin: true })
  await commands.sendStdin(first.pid, 'one\n')
  await commands.sendStdin(first.pid, new TextEncoder().encode('two\n'))
  await commands.closeStdin(first.pid)
  assert.equal((await first.wait()).stdout, 'one\ntwo\n')
  const second = await commands.run('cat; echo end', { background: true, stdin: true })
  await second.sendStdin('text\n')
  await second.closeStdin()
  assert.equal((await second.wait()).stdout, 'text\nend\n')
})

test('much output comes whole and in order', async () => {
  const { commands } = await shared()
  const { stdout } = await commands.run('seq 1 300000')
  const lines = stdout.trimEnd().split('\n')
  assert.equal(lines.length, 300_000)
  assert.ok(lines.every((line, at) => line === String(at + 1)))
})

test('commands at the same time', async () => {
  const { commands } = await shared()
  const runs = Array.from({ length: 20 }, (_, n) => commands.run(`sleep 1; echo ${n}`))
  const outputs = (await Promise.all(runs)).map((result) => result.stdout)
  assert.deepEqual(outputs, Array.from({ length: 20 }, (_, n) => `${n}\n`))
})
