// Requests to ports of sandboxes, past the SDK.

import http from 'node:http'

import { until } from './setup.js'

// In a cluster edges stand apart.
const edge = new URL(process.env.CASEMATE_TEST_SANDBOX_URL ?? process.env.CASEMATE_TEST_URL)

/** The answer as it begins. Not fetch: it does not let a caller set the host. */
export function open(host, path = '/', headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { host: edge.hostname, port: edge.port || 80, path, headers: { Host: host, ...headers } }
    http.get({ ...options, agent: false }, resolve).on('error', reject)
  })
}

export async function ask(host, path = '/', headers = {}) {
  const answer = await open(host, path, headers)
  let body = ''
  for await (const part of answer) body += part
  return { status: answer.statusCode, body }
}

// Counts its requests in memory and echoes the host that it was asked for; below /stream it never
// ends to talk.
const COUNTING = `
const http = require('http')
let count = 0
http.createServer((request, answer) => {
  if (request.url === '/stream') return void setInterval(() => answer.write('more\\n'), 50)
  answer.end(\`\${++count} \${request.headers.host}\`)
}).listen(Number(process.argv[2]), '127.0.0.1')
`

/**
 * Starts the counting server; gives its host. Nobody listens to what it says: the SDK asks for the
 * sandbox's health when such a stream is cut, which would wake one that traffic wakes.
 */
export async function serve(sandbox, port, headers = {}) {
  await sandbox.files.write('counting.js', COUNTING)
  const server = await sandbox.commands.run(`node counting.js ${port}`, { background: true, timeoutMs: 0 })
  await server.disconnect()
  const host = sandbox.getHost(port)
  await until('the server', async () => (await ask(host, '/', headers)).status === 200)
  return host
}
