import assert from 'node:assert/strict'
import { test } from 'node:test'

import { freshPath, shared } from '../setup.js'

test('a repository from its first commit to a pull', async () => {
  const { git, files } = await shared()
  const home = freshPath()
  const [origin, work, other] = [`${home}/o.git`, `${home}/w`, `${home}/v`]
  await git.init(origin, { bare: true, initialBranch: 'main' })
  await git.init(work, { initialBranch: 'main' })
  await git.configureUser('Tester', 't@example.com', { scope: 'local', path: work })
  await files.write(`${work}/f`, '1\n')
  const status = await git.status(work)
  assert.deepEqual(status.fileStatus.map((file) => [file.name, file.status]), [['f', 'untracked']])
  await git.add(work)
  await git.commit(work, 'first')
  await git.remoteAdd(work, 'origin', origin)
  assert.equal(await git.remoteGet(work, 'origin'), origin)
  await git.push(work, { remote: 'origin', branch: 'main' })
  await git.clone(origin, { path: other, branch: 'main', depth: 1 })
  await files.write(`${work}/f`, '2\n')
  await git.add(work, { files: ['f'] })
  await git.commit(work, 'second')
  await git.push(work)
  await git.pull(other)
  assert.equal(await files.read(`${other}/f`), '2\n')
})

test('branches, reset, restore and settings', async () => {
  const { git, files, commands } = await shared()
  const home = freshPath()
  await git.init(home, { initialBranch: 'main' })
  await files.write(`${home}/f`, '1\n')
  await git.add(home)
  await git.commit(home, 'first', { authorName: 'T', authorEmail: 't@example.com' })
  await git.createBranch(home, 'side')
  const found = await git.branches(home)
  assert.deepEqual([[...found.branches].sort(), found.currentBranch], [['main', 'side'], 'side'])
  await git.checkoutBranch(home, 'main')
  await git.deleteBranch(home, 'side')
  await files.write(`${home}/f`, 'changed\n')
  await git.add(home)
  await git.reset(home, { mode: 'mixed' })
  await git.restore(home, { paths: ['f'] })
  assert.equal(await files.read(`${home}/f`), '1\n')
  await git.setConfig('pull.rebase', 'false', { scope: 'local', path: home })
  assert.equal(await git.getConfig('pull.rebase', { scope: 'local', path: home }), 'false')
  const login = { username: 'u', password: 'p', host: 'git-js.example.com' }
  await git.dangerouslyAuthenticate(login)
  const kept = await commands.run('grep git-js ~/.git-credentials')
  assert.equal(kept.stdout, 'https://u:p@git-js.example.com\n')
})
