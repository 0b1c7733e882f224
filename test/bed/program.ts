// The bed of a program that vitest does not run, such as a benchmark: the same engines, made when they are asked for.

import { rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Dockerd } from './dockerd.ts'
import { claimSlot, Engines } from './engines.ts'
import { cacheFolder, socketFolder } from './folders.ts'

export interface Bed extends AsyncDisposable {
  /** An engine of its own with SMALL_IMAGE and NODE_IMAGE in it, running. Needs root. */
  engine(name: string): Promise<Dockerd>
}

/** Everything that it starts ends when it is disposed of, containers included. */
export async function openBed(): Promise<Bed> {
  const cache = cacheFolder(process.env)
  const server = createServer()
  const { slot } = await claimSlot(server, cache)
  const engines = new Engines(cache, slot, process.env)
  return {
    engine: (name) => engines.own(name),
    async [Symbol.asyncDispose]() {
      await engines.end()
      rmSync(socketFolder(cache, slot), { recursive: true, force: true })
      server.close()
    },
  }
}
