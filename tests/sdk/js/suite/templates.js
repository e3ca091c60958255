// Templates as the JavaScript SDK builds them: each method once, seen in a sandbox of the result.

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { ask } from '../edge.js'
import { Template } from '../noted.js'
import { build, create, freshName, started, until } from '../setup.js'

const OPEN = process.env.CASEMATE_TEST_REGISTRY
const PRIVATE = process.env.CASEMATE_TEST_REGISTRY_PRIVATE
const LOGIN = {
  username: process.env.CASEMATE_TEST_REGISTRY_USER,
  password: process.env.CASEMATE_TEST_REGISTRY_PASSWORD,
}

const said = async (sandbox, command, options) => (await sandbox.commands.run(command, options)).stdout

/** A folder with files of a test's own. */
function context() {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'casemate-js-'))
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
  for (const name of ['dir', 'dir/sub', 'src']) mkdirSync(path.join(dir, name))
  for (const name of ['a.txt', 'dir/b.txt', 'dir/sub/c.txt', 'dir/.hidden', 'src/x.js', 'src/y.js', 'src/no.log']) {
    writeFileSync(path.join(dir, name), path.basename(name), { mode: 0o644 })
  }
  writeFileSync(path.join(dir, 'unique'), freshName())
  symlinkSync('b.txt', path.join(dir, 'dir/link'))
  return dir
}

test('steps of a template', async () => {
  const value = 'it\'s "quoted" \\ `id` $(id)\nand more'
  const template = Template()
    .fromBaseImage()
    .setEnvs({ VALUE: value, OWN_PATH: '/own:${PATH}' })
    .runCmd('printf %s "$VALUE" > value; echo $OWN_PATH > path; id -un > who')
    .runCmd(['id -un > /who-root', 'chmod 600 /who-root'], { user: 'root' })
    .makeDir(['one', 'two'], { mode: 0o750 })
    .makeDir('/of-root', { user: 'root' })
    .runCmd('touch one/file two/file')
    .rename('one/file', 'one/renamed', { force: true })
    .rename('/of-root', '/still-of-root', { user: 'root' })
    .makeSymlink('one/renamed', 'link', { force: true })
    .remove('/home/user/two', { recursive: true, force: true, user: 'root' })
    .runCmd('git init -q origin && cd origin && git -c user.name=n -c user.email=e@e commit -q --allow-empty -m first')
    .gitClone('/home/user/origin', 'cloned', { depth: 1 })
    .setWorkdir('/srv/work')
    .setUser('builder')
    .runCmd('id -un > ~/who; pwd >> ~/who')
  const sandbox = await started(template)
  assert.equal(await said(sandbox, 'id -un; pwd; cat ~/who'), 'builder\n/srv/work\nbuilder\n/srv/work\n')
  const seen = 'cd /home/user; cat value; echo; cut -c-6 path; cat who; sudo cat /who-root; readlink link; ls -d one/* two 2>&1'
  assert.equal(
    await said(sandbox, `${seen}; true`, { user: 'user' }),
    `${value}\n/own:/\nuser\nroot\none/renamed\nls: cannot access 'two': No such file or directory\none/renamed\n`
  )
  const stat = "stat -c '%a %U' /home/user/one /still-of-root; git -C /home/user/cloned log --format=%s"
  assert.equal(await said(sandbox, stat, { user: 'user' }), '750 user\n755 root\nfirst\n')
  assert.doesNotMatch(await said(sandbox, 'env'), /OWN_PATH|VALUE/)
})

test('files that are copied', async () => {
  const fileContextPath = context()
  const of = () => Template({ fileContextPath, fileIgnorePatterns: ['**/*.log'] }).fromBaseImage()
  const template = of()
    .copy('a.txt', '/srv/into/')
    .copy('dir', '/srv/dir', { user: 'root', mode: 0o700 })
    .copy(['src/x.js', 'src/y.js'], '/srv/several/')
    .copy('src', '/srv/src', { gzip: false })
    .copy('dir', '/srv/resolved', { resolveSymlinks: true })
    .copyItems([
      { src: 'a.txt', dest: 'renamed', mode: 0o600 },
      { src: 'unique', dest: '/srv/unique', forceUpload: true },
    ])
  const built = await build(template)
  assert.ok(built.lines.includes("Uploaded 'unique'"))
  const sandbox = await create(built.templateId)
  const find = "sudo find /srv /home/user/renamed -mindepth 1 -not -type d -printf '%y %m %u %P %l\\n' | LC_ALL=C sort -k4"
  assert.deepEqual(
    (await said(sandbox, find)).trim().split('\n').map((line) => line.trim()),
    [
      'f 700 root dir/.hidden',
      'f 700 root dir/b.txt',
      'l 777 root dir/link b.txt',
      'f 700 root dir/sub/c.txt',
      'f 644 user into/a.txt',
      'f 644 user resolved/.hidden',
      'f 644 user resolved/b.txt',
      'f 644 user resolved/link',
      'f 644 user resolved/sub/c.txt',
      'f 644 user several/x.js',
      'f 644 user several/y.js',
      'f 644 user src/x.js',
      'f 644 user src/y.js',
      'f 644 user unique',
    ]
  )
  assert.equal(await said(sandbox, "stat -c '%a %U' renamed"), '600 user\n')
  const again = await build(of().copy('a.txt', '/srv/into/'))
  assert.ok(again.lines.includes("Skipping upload of 'a.txt', already cached"))
  assert.ok(again.lines.some((line) => line.startsWith('CACHED [builder 1/1] COPY a.txt')))
})

test('packages', { skip: process.env.CASEMATE_TEST_INTERNET !== '1' && 'CASEMATE_TEST_INTERNET is not 1' }, async () => {
  const template = Template().fromBaseImage().npmInstall('left-pad@1.3.0').pipInstall('iniconfig==2.3.1').aptInstall('bc')
  const sandbox = await started(template)
  assert.equal(await said(sandbox, `node -p 'require("left-pad")(4, 2)'; echo 6*7 | bc; python3 -c 'import iniconfig'`), ' 4\n42\n')
})

test('a start command', async () => {
  const template = Template()
    .fromBaseImage()
    .setWorkdir('/srv/page')
    .runCmd('echo served > index.html')
    .setStartCmd('python3 -m http.server 8700 --bind 127.0.0.1', e2b.waitForPort(8700))
  const built = await build(template)
  const sandbox = await create(built.templateId)
  assert.deepEqual(await ask(sandbox.getHost(8700)), { status: 200, body: 'served\n' })
  const [process] = await sandbox.commands.list()
  assert.deepEqual([process.cmd, process.cwd], ['/bin/bash', '/srv/page'])
  const child = await started(Template().fromTemplate(built.name).runCmd('echo child > child.html'))
  assert.equal((await ask(child.getHost(8700), '/child.html')).body, 'child\n')
  for (const [start, ready] of [
    ['cd /srv && python3 -m http.server 8701', e2b.waitForURL('http://localhost:8701/')],
    ['exec sleep 4391', e2b.waitForProcess('sleep')],
    ['touch /tmp/up; sleep 4392', e2b.waitForFile('/tmp/up')],
    ['sleep 4393', e2b.waitForTimeout(1000)],
  ]) {
    const sandbox = await started(Template().fromBaseImage().setStartCmd(start, ready))
    assert.equal((await sandbox.commands.list())[0].args.at(-1), start)
  }
  const ready = await started(Template().fromBaseImage().setReadyCmd('true'))
  assert.deepEqual(await ready.commands.list(), [])
})

test('images of registries', async () => {
  for (const template of [
    Template().fromImage(`${OPEN}/debian:12`),
    Template().fromImage(`${PRIVATE}/debian:12`, LOGIN),
  ]) {
    const sandbox = await started(template.runCmd('echo $FROM_IMAGE > ~/seen'))
    assert.equal(await said(sandbox, 'cat seen'), 'yes\n')
  }
  const denied = Template().skipCache().fromImage(`${PRIVATE}/debian:12`)
  await assert.rejects(build(denied), { name: 'BuildError', message: /^access denied to/ })
})

test("Amazon's and Google's logins", async () => {
  const aws = (more) => {
    const [accessKeyId, secretAccessKey, region] = JSON.parse(process.env.CASEMATE_TEST_AWS)
    const image = `${process.env.CASEMATE_TEST_AWS_REGISTRY}/debian:12`
    return Template().skipCache().fromAWSRegistry(image, { accessKeyId, secretAccessKey, region, ...more })
  }
  const gcp = (more) => {
    const serviceAccountJSON = { ...JSON.parse(process.env.CASEMATE_TEST_GCP), ...more }
    return Template().skipCache().fromGCPRegistry(`${process.env.CASEMATE_TEST_GCP_REGISTRY}/debian:12`, { serviceAccountJSON })
  }
  for (const template of [aws(), gcp()]) {
    const sandbox = await started(template.runCmd('echo $FROM_IMAGE > ~/seen'))
    assert.equal(await said(sandbox, 'cat seen'), 'yes\n')
  }
  for (const template of [aws({ secretAccessKey: 'wrong-key' }), gcp({ private_key: 'wrong-key' })]) {
    const error = await build(template).catch((error) => error)
    assert.ok(error instanceof e2b.BuildError, error)
    assert.match(error.message, /^access denied to/)
    assert.doesNotMatch(error.message, /wrong-key/)
  }
  await assert.rejects(build(aws({ region: 'x/../y' })), { message: /^invalid registry credentials: the AWS region/ })
})

test('a step that fails', async () => {
  // Not through the proxies: what they add to a stack is no line of ours.
  const template = e2b.Template().fromBaseImage().runCmd('true')
  template.runCmd('echo why >&2; exit 7') // This one.
  const line = new Error().stack.split('\n')[1].match(/:(\d+):\d+\)?$/)[1] - 1
  const name = freshName()
  const error = await build(template, name).catch((error) => error)
  assert.ok(error instanceof e2b.BuildError)
  assert.equal(error.message, "failed to run command 'echo why >&2; exit 7': exit status 7")
  assert.match(error.stack, new RegExp(`templates\\.js:${line}:`))
  await assert.rejects(create(name), /404/)
})

test('builds in the background, names and tags', async () => {
  const name = freshName()
  assert.equal(await Template.exists(name), false)
  const template = Template().fromBaseImage().runCmd('echo first > said')
  const info = await Template.buildInBackground(template, name, { tags: ['v1'], cpuCount: 1, memoryMB: 512 })
  assert.deepEqual([info.name, info.alias, info.tags], [name, name, ['v1']])
  let status
  await until('the build', async () => (status = await Template.getBuildStatus(info)).status === 'ready', 60)
  assert.match(status.logEntries[0].message, /^Building template/)
  const rest = await Template.getBuildStatus(info, { logsOffset: status.logEntries.length })
  assert.deepEqual(rest.logEntries, [])
  const second = await build(Template().fromBaseImage().runCmd('echo second > said'), name, { skipCache: true })
  assert.equal(second.templateId, info.templateId)
  assert.equal(await Template.aliasExists(`${name}:v1`), true)
  const assigned = await Template.assignTags(`${name}:v1`, ['stable', 'old'])
  assert.deepEqual([assigned.buildId, assigned.tags.sort()], [info.buildId, ['old', 'stable']])
  assert.equal(await Template.removeTags(name, 'old'), undefined)
  const tags = await Template.getTags(name)
  assert.deepEqual(
    tags.map((tag) => [tag.tag, tag.buildId]),
    [['default', second.buildId], ['stable', info.buildId], ['v1', info.buildId]]
  )
  for (const [reference, expected] of [[name, 'second'], [`${name}:stable`, 'first']]) {
    const sandbox = await create(reference)
    assert.equal(await said(sandbox, 'cat said'), `${expected}\n`)
    const { cpuCount, memoryMB } = await sandbox.getInfo()
    if (expected === 'first') assert.deepEqual([cpuCount, memoryMB], [1, 512])
  }
  await assert.rejects(Template.assignTags(`${name}:none`, 'x'), e2b.TemplateError)
  await assert.rejects(Template.removeTags(name, 'default'), e2b.TemplateError)
  await assert.rejects(Template.getTags(freshName()), e2b.TemplateError)
  const unknown = Template().fromTemplate(freshName())
  await assert.rejects(build(unknown), { name: 'BuildError', message: /^template '.*' not found/ })
})
