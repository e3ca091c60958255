import assert from 'node:assert/strict'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { Sandbox } from '../noted.js'
import { create, shared, until } from '../setup.js'

const MISSING = 'i00000000000000000000'

test('create with everything that is kept', async () => {
  const sandbox = await create('base', {
    timeoutMs: 300_000,
    metadata: { purpose: 'a b', ü: 'ö' },
    envs: { GREETING: 'hello' },
  })
  const info = await sandbox.getInfo()
  assert.equal(info.sandboxId, sandbox.sandboxId)
  assert.deepEqual(info.metadata, { purpose: 'a b', ü: 'ö' })
  assert.equal(info.state, 'running')
  assert.deepEqual([info.cpuCount, info.memoryMB, info.name], [2, 512, 'base'])
  assert.ok(Math.abs(info.endAt - info.startedAt - 300_000) < 5000)
  assert.equal((await sandbox.commands.run('echo $GREETING')).stdout, 'hello\n')
  const full = await Sandbox.getFullInfo(sandbox.sandboxId)
  assert.equal(full.templateId, info.templateId)
})

test('a sandbox knows where it is', async () => {
  const sandbox = await shared()
  const host = sandbox.getHost(8000)
  assert.equal(host, `8000-${sandbox.sandboxId}.${sandbox.sandboxDomain}`)
  assert.equal(sandbox.getMcpUrl(), `https://${sandbox.getHost(50005)}/mcp`)
  assert.ok(sandbox.trafficAccessToken === undefined || sandbox.trafficAccessToken)
  assert.equal(await sandbox.isRunning(), true)
})

test('the MCP token is read from its file', async () => {
  const sandbox = await create()
  await sandbox.files.write('/etc/mcp-gateway/.token', 't0ken', { user: 'root' })
  assert.equal(await sandbox.getMcpToken(), 't0ken')
})

test('kill ends it and says whether it was there', async () => {
  const [first, second] = [await create(), await create()]
  assert.equal(await first.kill(), true)
  assert.equal(await first.kill(), false)
  assert.equal(await first.isRunning(), false)
  assert.equal(await Sandbox.kill(second.sandboxId), true)
  assert.equal(await Sandbox.kill(MISSING), false)
  await assert.rejects(first.commands.run('true'), e2b.SandboxNotFoundError)
  await assert.rejects(first.files.list('/'), e2b.TimeoutError)
  await assert.rejects(first.getInfo(), e2b.NotFoundError)
})

test('metrics come soon and tell what it uses', async () => {
  const sandbox = await create()
  const before = new Date(Date.now() - 3_600_000)
  await sandbox.commands.run('dd if=/dev/zero of=/tmp/some bs=1M count=20 && sync')
  const metrics = await until('a sample comes', async () => {
    const all = await sandbox.getMetrics()
    return all.some((m) => m.memUsed > 0 && m.diskUsed > 10 << 20) && all
  }, 60)
  for (const one of metrics) {
    assert.ok(one.timestamp instanceof Date && one.timestamp > before)
    assert.deepEqual([one.cpuCount, one.memTotal], [2, 512 << 20])
    assert.ok(one.cpuUsedPct >= 0 && one.cpuUsedPct <= 100)
    assert.ok(one.diskTotal > one.diskUsed && one.memTotal > one.memUsed && one.memCache >= 0)
  }
  const past = { start: new Date(+before - 1000), end: before }
  assert.deepEqual(await sandbox.getMetrics(past), [])
  assert.ok((await Sandbox.getMetrics(sandbox.sandboxId, { start: before })).length > 0)
  assert.deepEqual(await Sandbox.getMetrics(MISSING), [])
})

test('connect gives the same sandbox and never shortens its life', async () => {
  const sandbox = await create({ timeoutMs: 600_000 })
  await sandbox.files.write('mark', 'same')
  const before = (await Sandbox.getInfo(sandbox.sandboxId)).endAt
  const other = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
  assert.equal(other.sandboxId, sandbox.sandboxId)
  assert.equal(await other.files.read('mark'), 'same')
  await sandbox.connect({ timeoutMs: 10_000 })
  assert.deepEqual((await sandbox.getInfo()).endAt, before)
  await assert.rejects(Sandbox.connect(MISSING), e2b.NotFoundError)
})

test('setTimeout moves the end both ways', async () => {
  const sandbox = await create({ timeoutMs: 60_000 })
  await sandbox.setTimeout(600_000)
  assert.ok(Math.abs((await sandbox.getInfo()).endAt - Date.now() - 600_000) < 5000)
  await Sandbox.setTimeout(sandbox.sandboxId, 90_000)
  assert.ok(Math.abs((await sandbox.getInfo()).endAt - Date.now() - 90_000) < 5000)
})

test('it ends when its time is over', async () => {
  const sandbox = await create({ timeoutMs: 1000 })
  await until('the end', async () => !(await sandbox.isRunning()), 4)
})

test('list filters and pages', async () => {
  const run = `js-${Date.now()}`
  const ids = []
  for (const n of ['0', '1', '2']) {
    ids.push((await create({ metadata: { run, n } })).sandboxId)
  }
  const query = { metadata: { run }, state: ['running'] }
  const pages = Sandbox.list({ query, limit: 2 })
  assert.equal(pages.hasNext, true)
  const first = await pages.nextItems()
  assert.equal(first.length, 2)
  assert.ok(pages.nextToken)
  const found = [...first, ...(await pages.nextItems())].map((info) => info.sandboxId)
  assert.equal(pages.hasNext, false)
  assert.deepEqual(found.sort(), [...ids].sort())
  const oldest = await Sandbox.list({ query, order: 'asc' }).nextItems()
  assert.deepEqual(oldest.map((info) => info.sandboxId), ids)
})

test('a port of the agent cannot speak TLS', async () => {
  const network = { httpsPorts: [49983] }
  await assert.rejects(create({ network }), /httpsPorts has 49983/)
})

test('wrong keys and unknown templates are refused', async () => {
  await assert.rejects(create({ apiKey: `e2b_${'0'.repeat(40)}` }), e2b.AuthenticationError)
  await assert.rejects(create('no-such-template'), /no-such-template/)
})
