import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { freshPath, shared, until } from '../setup.js'

test('write and read back in every format', async () => {
  const { files } = await shared()
  const path = `${freshPath()}/deep/ünï cödé.txt`
  const info = await files.write(path, 'one ü\n')
  assert.deepEqual([info.name, info.path, info.type], ['ünï cödé.txt', path, 'file'])
  assert.equal(await files.read(path), 'one ü\n')
  assert.equal(Buffer.from(await files.read(path, { format: 'bytes' })).toString(), 'one ü\n')
  assert.equal(await (await files.read(path, { format: 'blob' })).text(), 'one ü\n')
  await files.write(path, '')
  assert.equal(await files.read(path), '')
})

test('every way to upload', async () => {
  const { files, commands } = await shared()
  const home = freshPath()
  const big = randomBytes(3_000_000)
  const array = big.buffer.slice(big.byteOffset, big.byteOffset + big.length)
  await files.write(`${home}/array`, array)
  await files.write(`${home}/blob`, new Blob([big]))
  await files.write(`${home}/stream`, new Blob([big]).stream())
  await files.write(`${home}/raw`, array, { useOctetStream: true })
  await files.write(`${home}/gzip`, array, { gzip: true })
  const sums = await commands.run(`cd ${home} && sha256sum * | cut -d' ' -f1 | sort -u | wc -l`)
  assert.equal(sums.stdout, '1\n')
  const parts = []
  for await (const part of await files.read(`${home}/raw`, { format: 'stream' })) parts.push(part)
  assert.ok(Buffer.concat(parts).equals(big))
})

test('write several at once', async () => {
  const { files } = await shared()
  const home = freshPath()
  const entries = [0, 1, 2].map((n) => ({ path: `${home}/d${n}/f`, data: String(n) }))
  const infos = await files.writeFiles(entries)
  assert.deepEqual(infos.map((info) => info.path), entries.map((entry) => entry.path))
  assert.equal((await files.write(entries)).length, 3)
  assert.equal(await files.read(`${home}/d2/f`), '2')
})

test('list, getInfo, exists, makeDir, rename, remove', async () => {
  const { files, commands } = await shared()
  const home = freshPath()
  assert.equal(await files.makeDir(`${home}/x/y`), true)
  assert.equal(await files.makeDir(`${home}/x/y`), false)
  await files.write(`${home}/x/y/f`, '123', { metadata: { kind: 'test' } })
  await commands.run(`chmod 600 ${home}/x/y/f`)
  const deep = await files.list(home, { depth: 3 })
  assert.ok(deep.some((entry) => entry.path === `${home}/x/y/f`))
  assert.deepEqual((await files.list(home)).map((entry) => [entry.name, entry.type]), [['x', 'dir']])
  const info = await files.getInfo(`${home}/x/y/f`)
  assert.deepEqual([info.size, info.mode, info.owner], [3, 0o600, 'user'])
  assert.deepEqual(info.metadata, { kind: 'test' })
  assert.equal((await files.rename(`${home}/x`, `${home}/z`)).path, `${home}/z`)
  assert.equal(await files.exists(`${home}/z/y/f`), true)
  await files.remove(`${home}/z`)
  assert.equal(await files.exists(`${home}/z`), false)
})

test('errors name what is wrong', async () => {
  const { files } = await shared()
  const home = freshPath()
  await assert.rejects(files.read(`${home}/none`), e2b.FileNotFoundError)
  await assert.rejects(files.list(`${home}/none`), e2b.FileNotFoundError)
  await assert.rejects(files.getInfo(`${home}/none`), e2b.FileNotFoundError)
  await assert.rejects(files.rename(`${home}/none`, `${home}/x`), e2b.FileNotFoundError)
  await files.makeDir(home)
  await assert.rejects(files.read(home), e2b.InvalidArgumentError)
})

test('every kind of event is watched, also below', async () => {
  const { files, commands } = await shared()
  const home = freshPath()
  await files.makeDir(`${home}/x`)
  const seen = []
  let ended = false
  const handle = await files.watchDir(home, (event) => seen.push(event), {
    recursive: true,
    includeEntry: true,
    onExit: () => (ended = true),
  })
  const has = (name, type) =>
    until(`${type} of ${name}`, () => seen.some((e) => e.name === name && e.type === type))
  await files.write(`${home}/x/a`, '1')
  await has('x/a', 'create')
  await has('x/a', 'write')
  await commands.run(`chmod 600 ${home}/x/a`)
  await has('x/a', 'chmod')
  await files.rename(`${home}/x/a`, `${home}/x/b`)
  await has('x/a', 'rename')
  await files.remove(`${home}/x/b`)
  await has('x/b', 'remove')
  assert.ok(seen.some((e) => e.type === 'create' && e.entry?.path === `${home}/x/a`))
  await handle.stop()
  await until('the end of the watch', () => ended)
  await assert.rejects(files.watchDir(`${home}/none`, () => {}), e2b.FileNotFoundError)
})

test('signed links work without the SDK', async () => {
  const sandbox = await shared()
  const path = `${freshPath()}/signed`
  const headers = { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49983' }
  const options = { user: 'user', useSignatureExpiration: 60_000 }
  const form = new FormData()
  form.append('file', new Blob(['hi']), 'x')
  const up = await fetch(await sandbox.uploadUrl(path, options), { method: 'POST', body: form, headers })
  assert.equal(up.status, 200, await up.text())
  const link = await sandbox.downloadUrl(path, options)
  assert.equal(await (await fetch(link, { headers })).text(), 'hi')
  assert.equal((await fetch(link.replace('signed', 'others'), { headers })).status, 401)
})
