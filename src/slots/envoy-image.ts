// Fetches Envoy from the official image: a container is created, never started, and the file copied out of it.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

import Docker from 'dockerode'

import { ENVOY_IMAGE } from './envoy-release.ts'

/** Without a byte from the engine for this long, it is given up. */
const ENGINE_TIMEOUT_MS = 120_000

export interface ImageRequest {
  /** An empty folder for the file; the caller removes it. */
  readonly folder: string
  /** The Unix socket of a Docker engine. */
  readonly engineSocket: string
  readonly progress: (line: string) => void
}

/** The path of an executable Envoy in `folder`. Rejects with an Error whose message says in words why not. */
export async function envoyFromImage({ folder, engineSocket, progress }: ImageRequest): Promise<string> {
  // Without a host and a protocol of its own, dockerode takes those of DOCKER_HOST and leaves the socket aside.
  const address = { socketPath: engineSocket, host: undefined, port: undefined, protocol: 'http' } as const
  const engine = new Docker({ ...address, timeout: ENGINE_TIMEOUT_MS })
  if (!(await hasImage(engine))) await pull(engine, progress)
  progress(`Copying Envoy out of ${ENVOY_IMAGE}`)
  const container = await engine.createContainer({ Image: ENVOY_IMAGE, NetworkDisabled: true })
  try {
    await unpack(await container.getArchive({ path: '/usr/local/bin/envoy' }), folder)
  } finally {
    await container.remove({ force: true, v: true })
  }
  return join(folder, 'envoy')
}

async function hasImage(engine: Docker): Promise<boolean> {
  return engine
    .getImage(ENVOY_IMAGE)
    .inspect()
    .then(
      () => true,
      (error: { statusCode?: number }) => {
        if (error.statusCode === 404) return false
        throw error
      },
    )
}

async function pull(engine: Docker, progress: (line: string) => void): Promise<void> {
  progress(`Pulling ${ENVOY_IMAGE}`)
  const stream = await engine.pull(ENVOY_IMAGE)
  await new Promise<void>((resolve, reject) => {
    engine.modem.followProgress(
      stream,
      (error: Error | null) => (error ? reject(error) : resolve()),
      ({ status, id }: { status?: string; id?: string }) => {
        if (status === 'Pull complete') progress(`Pulled layer ${id ?? ''}`.trimEnd())
      },
    )
  })
}

async function unpack(archive: NodeJS.ReadableStream, folder: string): Promise<void> {
  const tar = spawn('tar', ['-xf', '-', '-C', folder], { stdio: ['pipe', 'ignore', 'ignore'] })
  const ended = new Promise<void>((resolve, reject) => {
    tar.once('error', reject)
    tar.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`tar ended with ${code ?? 'a signal'}.`))))
  })
  try {
    // Together, so that neither rejection is left without a listener when the other comes first.
    await Promise.all([pipeline(archive, tar.stdin), ended])
  } finally {
    tar.kill('SIGKILL')
  }
}
