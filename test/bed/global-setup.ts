// Vitest's global setup: one bed for all workers of a run. It makes nothing until a test asks, so that a run of pure
// tests costs nothing, and it ends everything that it started.

import { createServer, type IncomingMessage } from 'node:http'
import { rmSync } from 'node:fs'
import type { TestProject } from 'vitest/node'
import { claimSlot, Engines, type Change } from './engines.ts'
import { cacheFolder, socketFolder } from './folders.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The abstract Unix socket of the bed, asked by test/bed/docker.ts. */
    bed: string
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const cache = cacheFolder(process.env)
  const server = createServer()
  const { slot, address } = await claimSlot(server, cache)
  const engines = new Engines(cache, slot, process.env)
  let warned = false

  server.on('request', (request, response) => {
    answer(engines, request).then(
      (body) => response.end(JSON.stringify(body ?? {})),
      (error: Error) => {
        if (!warned) process.stderr.write(`\n*** THE DOCKER TESTS CANNOT RUN: ${error.message}\n\n`)
        warned = true
        response.writeHead(503).end(JSON.stringify({ reason: error.message }))
      },
    )
  })
  project.provide('bed', address)

  return async () => {
    await engines.end()
    rmSync(socketFolder(cache, slot), { recursive: true, force: true })
    server.close()
    server.closeAllConnections()
  }
}

async function answer(engines: Engines, request: IncomingMessage): Promise<unknown> {
  const [, what, name = '', change] = (request.url ?? '').split('/')
  if (what === 'main') return engines.main()
  if (what === 'dind') return engines.provideDind(name)
  if (what === 'compose') return engines.provideCompose(name)
  return change === undefined ? engines.spare(name) : engines.change(name, change as Change)
}
