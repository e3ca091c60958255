// What the SDK makes of a template before it is sent, where that is all that can be seen here.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

import * as e2b from 'e2b'

import { Template } from '../noted.js'

const wire = async (template, computeHashes) => JSON.parse(await Template.toJSON(template, computeHashes))
const runs = async (template) => (await wire(template)).steps.map((step) => step.args)

test('where templates begin', async () => {
  for (const [template, image] of [
    [Template().fromDebianImage(), 'debian:stable'],
    [Template().fromUbuntuImage('24.04'), 'ubuntu:24.04'],
    [Template().fromFedoraImage(), 'fedora:44'],
    [Template().fromAlpineImage(), 'alpine:3.24'],
    [Template().fromArchImage(), 'archlinux:latest'],
    [Template().fromPythonImage('3.13'), 'python:3.13'],
    [Template().fromNodeImage(), 'node:lts'],
    [Template().fromBunImage(), 'oven/bun:latest'],
    [Template().fromBaseImage(), 'e2bdev/base'],
    [Template().fromImage('some/image'), 'some/image'],
  ]) {
    assert.deepEqual(await wire(template), { fromImage: image, force: false, steps: [] })
  }
  const ofTemplate = Template().fromTemplate('parent:v1')
  assert.equal((await wire(ofTemplate)).fromTemplate, 'parent:v1')
  assert.throws(() => Template.toDockerfile(ofTemplate), /Cannot convert template built from another template/)
})

test('logins', async () => {
  const of = async (template) => (await wire(template)).fromImageRegistry
  const basic = { username: 'u', password: 'p' }
  assert.deepEqual(await of(Template().fromImage('i', basic)), { type: 'registry', ...basic })
  const aws = { accessKeyId: 'id', secretAccessKey: 'secret', region: 'eu-central-1' }
  assert.deepEqual(await of(Template().fromAWSRegistry('i', aws)), {
    type: 'aws',
    awsAccessKeyId: 'id',
    awsSecretAccessKey: 'secret',
    awsRegion: 'eu-central-1',
  })
  const gcp = await of(Template().fromGCPRegistry('i', { serviceAccountJSON: { a: 1 } }))
  assert.deepEqual([gcp.type, JSON.parse(gcp.serviceAccountJson)], ['gcp', { a: 1 }])
  assert.throws(() => Template().fromImage('i', { username: 'u' }), e2b.InvalidArgumentError)
})

test('what methods run', async () => {
  const builder = Template()
    .fromBaseImage()
    .bunInstall()
    .bunInstall(['a', 'b'], { g: true })
    .bunInstall('a', { dev: true })
    .npmInstall('a', { dev: true })
    .pipInstall()
    .pipInstall('a', { g: false })
    .aptInstall(['a', 'b'], { noInstallRecommends: true, fixMissing: true })
  const install = 'DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y'
  assert.deepEqual(await runs(builder), [
    ['bun install'],
    ['bun install -g a b', 'root'],
    ['bun install --dev a'],
    ['npm install --save-dev a'],
    ['pip install .', 'root'],
    ['pip install --user a'],
    [`apt-get update && ${install} --no-install-recommends --fix-missing a b`, 'root'],
  ])
})

test('what needs a certain parent', async () => {
  const ofBase = Template().fromBaseImage()
  assert.throws(() => ofBase.addMcpServer('exa'), e2b.BuildError)
  assert.throws(() => ofBase.betaDevContainerPrebuild('/d'), e2b.BuildError)
  assert.throws(() => ofBase.betaSetDevContainerStart('/d'), e2b.BuildError)
  const gateway = Template().fromTemplate('mcp-gateway').addMcpServer(['exa'])
  assert.deepEqual(await runs(gateway), [['mcp-gateway pull exa', 'root']])
  const container = Template().fromTemplate('devcontainer').betaDevContainerPrebuild('/d')
  assert.deepEqual(await runs(container), [['devcontainer build --workspace-folder /d', 'root']])
  assert.match((await wire(container.betaSetDevContainerStart('/d'))).startCmd, /^sudo devcontainer up/)
})

test('what is forced, and a Dockerfile', async () => {
  const told = await wire(Template().fromBaseImage().runCmd('a').skipCache().runCmd('b'))
  assert.deepEqual([told.force, ...told.steps.map((step) => step.force)], [false, false, true])
  assert.equal((await wire(Template().skipCache().fromBaseImage())).force, true)
  const fileContextPath = mkdtempSync(path.join(os.tmpdir(), 'casemate-js-'))
  process.once('exit', () => rmSync(fileContextPath, { recursive: true, force: true }))
  writeFileSync(path.join(fileContextPath, 'a.txt'), 'hello\n', { mode: 0o644 })
  const template = Template({ fileContextPath }).fromDockerfile(
    'FROM debian:12\nENV A=1\nWORKDIR /srv\nCOPY a.txt a.txt\nRUN echo $A\nCMD ["sleep", "9"]\n'
  )
  const recipe = await wire(template)
  assert.deepEqual(
    recipe.steps.map((step) => [step.type, ...step.args.slice(0, 2)]),
    [
      ['USER', 'root'],
      ['WORKDIR', '/'],
      ['ENV', 'A', '1'],
      ['WORKDIR', '/srv'],
      ['COPY', 'a.txt', 'a.txt'],
      ['RUN', 'echo $A'],
      ['USER', 'user'],
    ]
  )
  // The test vector of both SDKs.
  const hash = '49ccf0a0a1bce4bd8b8c004d206fb8b1692166706930faa40827886fa70b08f5'
  assert.equal(recipe.steps[4].filesHash, hash)
  assert.equal((await wire(template, false)).steps[4].filesHash, undefined)
  assert.deepEqual([recipe.startCmd, recipe.readyCmd], ['sleep 9', 'sleep 20'])
  assert.match(Template.toDockerfile(template), /^FROM debian:12\n/)
})
