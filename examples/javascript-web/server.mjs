// A web service that counts, with Node.js alone.
import http from 'node:http'

let requests = 0
http
  .createServer((request, response) => {
    requests += 1
    const { pathname } = new URL(request.url, 'http://localhost')
    response.setHeader('Content-Type', 'application/json')
    response.end(JSON.stringify({ path: pathname, requests }))
  })
  .listen(8000, '0.0.0.0')
