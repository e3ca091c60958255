import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { ask, open, serve } from '../edge.js'
import { Sandbox } from '../noted.js'
import { create, until } from '../setup.js'

const MISSING = 'i00000000000000000000'
const WAKES = { onTimeout: 'pause', autoResume: true }

const bootId = async (sandbox) => sandbox.files.read('/proc/sys/kernel/random/boot_id')
const state = async (sandbox) => (await sandbox.getInfo()).state
const left = async (sandbox) => (await sandbox.getInfo()).endAt - Date.now()
const count = (answer) => Number(answer.body.split(' ')[0])

function stays(milliseconds, wanted) {
  assert.ok(wanted - 10_000 < milliseconds && milliseconds <= wanted, `${milliseconds} of ${wanted}`)
}

/** As the API tells it: its `pauseMode` is there when a pause is over. */
async function pauseMode(sandbox) {
  const headers = { 'X-API-Key': process.env.E2B_API_KEY }
  const url = `${process.env.CASEMATE_TEST_URL}/sandboxes/${sandbox.sandboxId}`
  return (await (await fetch(url, { headers })).json()).pauseMode
}

test('a pause keeps what runs', async () => {
  const sandbox = await create()
  const boot = await bootId(sandbox)
  const host = await serve(sandbox, 8000)
  const before = count(await ask(host))
  for (const pause of [
    () => sandbox.pause(),
    () => Sandbox.pause(sandbox.sandboxId),
    () => sandbox.betaPause(),
    () => Sandbox.betaPause(sandbox.sandboxId, { keepMemory: true }),
  ]) {
    assert.equal(await pause(), true)
    assert.equal(await pause(), false)
    assert.equal(await sandbox.isRunning(), false)
    const info = await sandbox.getInfo()
    assert.equal(info.state, 'paused')
    assert.ok(info.endAt <= new Date())
    const same = await sandbox.connect()
    assert.equal(same.sandboxId, sandbox.sandboxId)
    assert.equal(await bootId(sandbox), boot)
  }
  assert.equal(count(await ask(host)), before + 1)
  await assert.rejects(Sandbox.pause(MISSING), e2b.SandboxNotFoundError)
  await sandbox.kill()
  await assert.rejects(sandbox.pause(), e2b.SandboxNotFoundError)
})

test('of a pause without memory files are left', async () => {
  const sandbox = await create({ envs: { GREETING: 'hello' } })
  const boots = new Set([await bootId(sandbox)])
  await sandbox.files.write('kept', 'kept')
  for (const [keepMemory, onResume] of [[false, undefined], [true, 'reboot']]) {
    await sandbox.commands.run('sleep 4324', { background: true }).then((one) => one.disconnect())
    assert.equal(await sandbox.pause({ keepMemory }), true)
    await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 60_000, onResume })
    boots.add(await bootId(sandbox))
    const seen = await sandbox.commands.run("pgrep -fx 'sleep 4324'; echo $GREETING; whoami; pwd; cat kept")
    assert.equal(seen.stdout, 'hello\nuser\n/home/user\nkept')
  }
  assert.equal(boots.size, 3)
})

test('what the SDK refuses by itself', async () => {
  for (const lifecycle of [
    { onTimeout: 'sleep' },
    { onTimeout: 'kill', autoResume: true },
    { onTimeout: { action: 'pause', keepMemory: false }, autoResume: true },
  ]) {
    await assert.rejects(create({ lifecycle }), e2b.InvalidArgumentError)
  }
  await assert.rejects(Sandbox.connect(MISSING, { onResume: 'perhaps' }), e2b.InvalidArgumentError)
})

test('lists tell running and paused ones, and both are killed', async () => {
  const run = randomUUID()
  const made = []
  for (let n = 0; n < 3; n += 1) made.push(await create({ metadata: { run } }))
  await made[1].pause()
  async function listed(options, ...state) {
    const query = { metadata: { run }, state: state.length ? state : undefined }
    const pages = Sandbox.list({ query, ...options })
    const found = []
    while (pages.hasNext) found.push(...(await pages.nextItems()))
    return found.map((info) => [made.findIndex((one) => one.sandboxId === info.sandboxId), info.state])
  }
  const both = [[2, 'running'], [1, 'paused'], [0, 'running']]
  assert.deepEqual(await listed({}), both)
  assert.deepEqual(await listed({ limit: 1 }), both)
  assert.deepEqual(await listed({ order: 'asc', limit: 2 }), [...both].reverse())
  assert.deepEqual(await listed({}, 'paused'), [both[1]])
  assert.deepEqual(await listed({ limit: 1 }, 'running'), [both[0], both[2]])
  assert.equal(await made[1].kill(), true)
  assert.equal(await made[1].kill(), false)
  await made[0].pause()
  await made[0].connect()
  assert.equal(await Sandbox.kill(made[0].sandboxId), true)
  assert.deepEqual(await listed({}), [both[0]])
  await assert.rejects(made[1].connect(), e2b.SandboxNotFoundError)
})

test('how long it lives after a pause', async () => {
  const sandbox = await create({ timeoutMs: 600_000 })
  for (const timeoutMs of [60_000, 900_000]) {
    await sandbox.pause()
    await assert.rejects(sandbox.setTimeout(100_000), e2b.SandboxNotFoundError)
    await sandbox.connect({ timeoutMs })
    stays(await left(sandbox), timeoutMs)
  }
})

test('what happens at the timeout', async () => {
  const kinds = [
    [{ onTimeout: 'pause' }, 'full'],
    [{ onTimeout: { action: 'pause', keepMemory: false } }, 'filesystem'],
    [{ onTimeout: 'kill' }, undefined],
  ]
  const made = await Promise.all(kinds.map(([lifecycle]) => create({ lifecycle })))
  const boots = await Promise.all(made.map(bootId))
  await Promise.all(made.map((sandbox) => sandbox.setTimeout(1000)))
  for (const [at, [lifecycle, mode]] of kinds.entries()) {
    const sandbox = made[at]
    if (!mode) {
      await until('the end', async () => !(await sandbox.isRunning()))
      await assert.rejects(sandbox.connect(), e2b.SandboxNotFoundError)
      continue
    }
    await until('the pause', async () => (await pauseMode(sandbox)) === mode)
    const info = await sandbox.getInfo()
    assert.equal(info.state, 'paused', JSON.stringify(lifecycle))
    assert.deepEqual(info.lifecycle, { onTimeout: 'pause', autoResume: false })
    await sandbox.connect()
    assert.equal((await bootId(sandbox)) === boots[at], mode === 'full')
  }
})

test('traffic wakes whom it may', async () => {
  const sandbox = await create({ timeoutMs: 60_000, lifecycle: WAKES })
  const boot = await bootId(sandbox)
  const host = await serve(sandbox, 8000)
  const before = count(await ask(host))
  await sandbox.pause()
  assert.equal(count(await ask(host)), before + 1)
  stays(await left(sandbox), 300_000)
  await sandbox.pause()
  assert.equal((await sandbox.commands.run('cat /proc/sys/kernel/random/boot_id')).stdout, boot)
  await sandbox.pause()
  assert.equal(await bootId(sandbox), boot)
  await sandbox.pause()
  assert.equal(await sandbox.isRunning(), true)
  await sandbox.pause()
  const refused = await ask(sandbox.getHost(49983), '/health', { 'X-Access-Token': '0'.repeat(64) })
  assert.equal(refused.status, 403)
  assert.equal(await state(sandbox), 'paused')
})

test('traffic wakes nobody who did not ask for it', async () => {
  const sandbox = await create()
  const host = await serve(sandbox, 8000)
  await sandbox.pause()
  const answer = await ask(host)
  assert.equal(answer.status, 502)
  assert.match(answer.body, /was not found/)
  await assert.rejects(sandbox.commands.run('true'), e2b.SandboxNotFoundError)
  await assert.rejects(sandbox.files.list('/'), e2b.TimeoutError)
  await assert.rejects(sandbox.files.read('kept'), e2b.TimeoutError)
  assert.equal(await state(sandbox), 'paused')
})

test('what is open ends at a pause and says so', async () => {
  const sandbox = await create()
  const handle = await sandbox.commands.run('read line; echo $line', { background: true, stdin: true })
  const terminal = await sandbox.pty.create({ cols: 80, rows: 24, onData: () => {} })
  const ended = []
  await sandbox.files.watchDir('/home/user', () => {}, { onExit: (error) => ended.push(error) })
  const stream = await open(await serve(sandbox, 8000), '/stream')
  const cut = (async () => { for await (const _ of stream); })()
  const waits = [handle.wait(), terminal.wait(), cut].map((wait) => wait.then(() => null, (error) => error))
  await sandbox.pause()
  const errors = await Promise.all(waits)
  assert.ok(errors[0] instanceof e2b.TimeoutError, String(errors[0]))
  assert.ok(errors[1] instanceof e2b.TimeoutError, String(errors[1]))
  assert.match(String(errors[2]), /aborted|reset/)
  await until('the end of the watch', () => ended.length > 0)
  assert.ok(ended[0] instanceof e2b.TimeoutError, String(ended[0]))
  await sandbox.connect()
  const other = await sandbox.commands.connect(handle.pid)
  await sandbox.commands.sendStdin(handle.pid, 'heard\n')
  assert.equal((await other.wait()).stdout, 'heard\n')
  assert.equal(await sandbox.pty.kill(terminal.pid), true)
})

test('links and rules of the network survive', async () => {
  const network = { allowOut: ['allowed.test'], denyOut: [e2b.ALL_TRAFFIC] }
  const sandbox = await create({ network })
  await sandbox.files.write('signed', 'hi')
  const link = await sandbox.downloadUrl('signed', { user: 'user', useSignatureExpiration: 60_000 })
  const headers = { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49983' }
  for (const keepMemory of [true, false]) {
    await sandbox.pause({ keepMemory })
    await sandbox.connect()
    assert.equal(await (await fetch(link, { headers })).text(), 'hi')
    const told = (await sandbox.getInfo()).network
    assert.deepEqual([told.allowOut, told.denyOut], [network.allowOut, network.denyOut])
    const asked = 'curl -s -m 10 --resolve other.test:80:192.0.2.1 http://other.test/ || true'
    assert.match((await sandbox.commands.run(asked)).stdout, /not in this sandbox's allowOut/)
  }
})

test('a private sandbox asks for its token', async () => {
  const sandbox = await create({
    network: { allowPublicTraffic: false, maskRequestHost: '${PORT}-app.example.com' },
    lifecycle: WAKES,
  })
  const right = { 'e2b-traffic-access-token': sandbox.trafficAccessToken }
  const host = await serve(sandbox, 8000, right)
  assert.match((await ask(host, '/', right)).body, / 8000-app\.example\.com$/)
  const wrong = { 'e2b-traffic-access-token': 'wrong' }
  assert.match((await ask(host)).body, /is missing/)
  assert.match((await ask(host, '/', wrong)).body, /is invalid/)
  await sandbox.pause()
  for (const headers of [{}, wrong]) assert.equal((await ask(host, '/', headers)).status, 403)
  assert.equal(await state(sandbox), 'paused')
  assert.equal((await ask(host, '/', right)).status, 200)
  assert.equal((await Sandbox.connect(sandbox.sandboxId)).trafficAccessToken, sandbox.trafficAccessToken)
})
