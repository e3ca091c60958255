// A client that knows a domain, a key and whom to trust, and nothing else: the stock SDK over https.
// Run by tests/platform/test_tls.py, in a mount namespace where /etc/hosts is a file of its own.
// Prints JSON.

import { appendFileSync } from 'node:fs'

import { Sandbox } from 'e2b'

const domain = process.env.E2B_DOMAIN.split(':')[0]
const resolve = (...names) =>
  appendFileSync('/etc/hosts', names.map((name) => `127.0.0.1 ${name}\n`).join(''))

async function fetched(url, tries = 100) {
  for (;;) {
    const answer = await fetch(url).catch((error) => ({ ok: false, error }))
    if (answer.ok) return answer.text()
    if (--tries === 0) throw answer.error ?? new Error(`${answer.status}`)
    await new Promise((done) => setTimeout(done, 100))
  }
}

async function main() {
  const told = {}
  resolve(domain, `api.${domain}`)
  const sandbox = await Sandbox.create({ timeoutMs: 120_000 })
  try {
    const host = sandbox.getHost(3000)
    resolve(`49983-${sandbox.sandboxId}.${domain}`, host.split(':')[0])
    told.ran = (await sandbox.commands.run('echo $((6 * 7))')).stdout
    await sandbox.files.write('/home/user/page/index.html', 'from inside')
    told.read = await sandbox.files.read('/home/user/page/index.html')
    const serve = 'cd /home/user/page && python3 -m http.server 3000 --bind 127.0.0.1'
    await sandbox.commands.run(serve, { background: true })
    told.fetched = await fetched(`https://${host}/`)
  } finally {
    await sandbox.kill()
  }
  console.log(JSON.stringify(told))
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error)
    process.exit(1)
  },
)
