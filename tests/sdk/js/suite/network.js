import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ALL_TRAFFIC } from 'e2b'

import { ask } from '../edge.js'
import { Sandbox } from '../noted.js'
import { create, shared, until } from '../setup.js'

test('a port that listens on loopback is reachable', async () => {
  const sandbox = await shared()
  const server = await sandbox.commands.run('python3 -m http.server 3400 --bind 127.0.0.1', {
    background: true,
    cwd: '/etc',
  })
  const host = sandbox.getHost(3400)
  await until('the port', async () => (await ask(host)).status === 200)
  assert.equal((await ask(host, '/hostname')).body, 'e2b.local\n')
  await server.kill()
  const closed = await ask(sandbox.getHost(9))
  assert.equal(closed.status, 502)
  assert.match(closed.body, /port is not open/)
})

test('network rules are shown and replaced', async () => {
  const sandbox = await create({ network: { allowOut: ['192.0.2.7'], denyOut: [ALL_TRAFFIC] } })
  const info = await sandbox.getInfo()
  assert.deepEqual(info.network.allowOut, ['192.0.2.7'])
  assert.deepEqual(info.network.denyOut, ['0.0.0.0/0'])
  await sandbox.updateNetwork({ denyOut: ['203.0.113.0/24'] })
  assert.deepEqual((await sandbox.getInfo()).network.denyOut, ['203.0.113.0/24'])
  await Sandbox.updateNetwork(sandbox.sandboxId, {})
  assert.ok(!(await sandbox.getInfo()).network?.denyOut?.length)
})

test('without internet a sandbox says so', async () => {
  const sandbox = await create({ allowInternetAccess: false })
  assert.equal((await sandbox.getInfo()).allowInternetAccess, false)
})
