import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { Sandbox } from '../noted.js'
import { create } from '../setup.js'

const MISSING = 'i00000000000000000000'

const freshName = () => `snap-js-${randomBytes(6).toString('hex')}`

async function ids(pages) {
  const found = []
  while (pages.hasNext) found.push(...(await pages.nextItems()))
  return found.map((snapshot) => snapshot.snapshotId)
}

test('a snapshot is a template of its own', async () => {
  const source = await create({ envs: { GREETING: 'of the source' } })
  await source.files.write('kept', 'before')
  const snapshot = await source.createSnapshot()
  assert.match(snapshot.snapshotId, /^[a-z0-9]{20}:default$/)
  assert.deepEqual(snapshot.names, [])
  await source.files.write('kept', 'after')
  await source.kill()
  const options = { envs: { GREETING: 'new' }, metadata: { made: 'anew' }, timeoutMs: 90_000 }
  const made = await create(snapshot.snapshotId, options)
  assert.equal((await made.commands.run('cat kept; echo $GREETING')).stdout, 'beforenew\n')
  const info = await made.getInfo()
  assert.deepEqual(info.metadata, { made: 'anew' })
  assert.equal(`${info.templateId}:default`, snapshot.snapshotId)
  assert.ok(Math.abs(info.endAt - info.startedAt - 90_000) < 5000)
  await assert.rejects(Sandbox.deleteSnapshot(snapshot.snapshotId), /running sandboxes using it/)
  await made.kill()
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
  await assert.rejects(create(snapshot.snapshotId), /404/)
})

test('names, tags and lists of snapshots', async () => {
  const name = freshName()
  const source = await create()
  await source.files.write('kept', 'first')
  const first = await source.createSnapshot({ name })
  assert.deepEqual(first, { snapshotId: `default/${name}:default`, names: [`default/${name}`] })
  const tagged = await Sandbox.createSnapshot(source.sandboxId, { name: `${name}:v2` })
  await source.files.write('kept', 'second')
  assert.equal((await source.createSnapshot({ name })).snapshotId, first.snapshotId)
  for (const [reference, content] of [[name, 'second'], [tagged.snapshotId, 'first']]) {
    const made = await create(reference, { timeoutMs: 30_000 })
    assert.equal(await made.files.read('kept'), content)
    await made.kill()
  }
  const both = [first.snapshotId, tagged.snapshotId].sort()
  assert.deepEqual((await ids(Sandbox.listSnapshots({ name }))).sort(), both)
  assert.deepEqual(await ids(Sandbox.listSnapshots({ name: `${name}:v2` })), [tagged.snapshotId])
  assert.deepEqual((await ids(source.listSnapshots())).sort(), both)
  const pages = Sandbox.listSnapshots({ sandboxId: source.sandboxId, limit: 1 })
  const page = await pages.nextItems()
  assert.ok(page.length === 1 && pages.hasNext && pages.nextToken)
  const nextToken = pages.nextToken
  const rest = await ids(source.listSnapshots({ limit: 1, nextToken }))
  assert.deepEqual([page[0].snapshotId, ...rest].sort(), both)
  await assert.rejects(source.createSnapshot({ name: `somebody/${name}` }), /must match your team/)
  assert.equal(await Sandbox.deleteSnapshot(name), true)
  assert.deepEqual(await ids(Sandbox.listSnapshots({ name })), [])
})

test('only what runs is kept', async () => {
  const sandbox = await create()
  await sandbox.pause()
  await assert.rejects(sandbox.createSnapshot(), e2b.SandboxNotFoundError)
  await assert.rejects(sandbox.fork(), /409.*is paused and cannot be forked/)
  await assert.rejects(Sandbox.createSnapshot(MISSING), e2b.SandboxNotFoundError)
  await assert.rejects(Sandbox.fork(MISSING), e2b.SandboxNotFoundError)
})

test('forks begin with the files of one', async () => {
  const source = await create({ envs: { GREETING: 'hello' }, metadata: { of: 'forks' } })
  await source.files.write('kept', 'kept')
  const forks = await source.fork({ timeoutMs: 60_000, count: 5 })
  forks.push(...(await Sandbox.fork(source.sandboxId)))
  try {
    assert.equal(new Set([source, ...forks].map((one) => one.sandboxId)).size, 7)
    for (const [at, fork] of forks.entries()) {
      assert.equal((await fork.commands.run('echo $GREETING; cat kept')).stdout, 'hello\nkept')
      await fork.files.write('kept', String(at))
      const info = await fork.getInfo()
      assert.deepEqual(info.metadata, { of: 'forks' })
      assert.ok(Math.abs(info.endAt - info.startedAt - (at < 5 ? 60_000 : 15_000)) < 5000)
    }
    assert.equal(await source.files.read('kept'), 'kept')
  } finally {
    await Promise.all(forks.map((fork) => fork.kill()))
  }
  for (const count of [0, 101]) {
    await assert.rejects(source.fork({ count }), /Count (must be at least 1|cannot be greater)|count must/)
  }
})
