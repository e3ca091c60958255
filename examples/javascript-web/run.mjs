// Builds a template with a web service in it, starts a sandbox, and asks the service.
import { Sandbox, Template, defaultBuildLogger, waitForPort } from 'e2b'

const NAME = 'example-javascript-web'

const template = Template()
  .fromBaseImage()
  .copy('server.mjs', '/srv/server.mjs')
  .setStartCmd('node /srv/server.mjs', waitForPort(8000))
await Template.build(template, NAME, {
  cpuCount: 1,
  memoryMB: 256,
  onBuildLogs: defaultBuildLogger(),
})

const sandbox = await Sandbox.create(NAME, { timeoutMs: 60_000 })
try {
  const host = sandbox.getHost(8000)
  const scheme = (process.env.E2B_API_URL ?? 'https://').split('://')[0]
  const answer = await fetch(`${scheme}://${host}/hello`)
  const said = await answer.json()
  console.log(`${host} says`, said)
  if (said.path !== '/hello') throw new Error('that is not what was asked for')
} finally {
  await sandbox.kill()
}
