// Puts an adapter together from its specification: slot, server, the two sockets, the orderly end.

import { rmSync } from 'node:fs'
import type { Server as ControlServer } from 'node:http'
import type { Server } from 'node:net'

import type { AdapterSpec } from './spec.ts'
import { DEFAULT_BOUNDS, type Bounds } from './bounds.ts'
import { findContainment, type Containment } from './containment.ts'
import { createControlServer } from './control.ts'
import { createHttpServer } from './http.ts'
import type { Log } from './log.ts'
import { Slot } from './slot.ts'
import { SseEndpoint } from './sse-endpoint.ts'
import type { StartStdio } from './stdio.ts'
import { attachedStarter } from './stdio-attached.ts'
import { imageStarter } from './stdio-image.ts'
import { localStarter } from './stdio-local.ts'

/** Linux keeps 108 bytes for a Unix socket's path, with the zero behind it. */
const SOCKET_PATH_BYTES = 107
/** Envoy may open many connections at once; the kernel takes its own ceiling where that is lower. */
const BACKLOG = 4096
/** What was written last gets this long to leave. */
const CLOSE_MS = 500

export interface Adapter {
  readonly slot: Slot
  /** Starts the end, or brings its deadline forward; the milliseconds are for running requests. */
  drain(deadlineMs: number): void
  /** Resolves when everything that the adapter started is gone and its sockets are removed. */
  readonly ended: Promise<void>
}

/**
 * Rejects with a plain message when a socket cannot be listened on.
 *
 * @param contain how local servers are started, where somebody has found that out already
 */
export async function startAdapter(
  spec: AdapterSpec,
  log: Log,
  bounds: Bounds = DEFAULT_BOUNDS,
  contain?: Promise<Containment>,
): Promise<Adapter> {
  const slot = new Slot(spec, starter(spec, log, bounds, contain), bounds, log)
  const end = Promise.withResolvers<void>()
  let draining = false
  const shutDown = async (deadlineMs: number) => {
    await slot.drain(deadlineMs)
    sse.close()
    await http.close(CLOSE_MS)
    // The control socket last, and at once: the end of its connections is the sign that everything is gone.
    await close(control)
    end.resolve()
  }
  const drain = (deadlineMs: number) => {
    if (draining) return slot.hurry(deadlineMs)
    draining = true
    log('info', 'stopping', { deadlineMs })
    void shutDown(deadlineMs)
  }
  const sse = new SseEndpoint(slot)
  const http = createHttpServer(slot, sse)
  const control = createControlServer(slot, drain)
  await listen(http.net, spec.httpSocket)
  await listen(control, spec.controlSocket)
  return { slot, drain, ended: end.promise }
}

function starter(spec: AdapterSpec, log: Log, bounds: Bounds, contain?: Promise<Containment>): StartStdio {
  const { messageBytes } = spec.limits
  if (spec.server.kind === 'container') return attachedStarter({ server: spec.server, messageBytes, bounds, log })
  if (spec.server.kind === 'image') return imageStarter({ server: spec.server, messageBytes, bounds, log })
  const containment = (contain ?? findContainment(process.env['PATH'])).then((found) => {
    if (found.length === 0)
      log('warn', 'no PID namespaces here: a server that leaves its group can outlive the adapter')
    return found
  })
  return localStarter({ server: spec.server, containment, messageBytes, bounds, log })
}

async function listen(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES) {
    throw new Error(`The socket path ${path} is longer than ${SOCKET_PATH_BYTES} bytes. Use a shorter state folder.`)
  }
  rmSync(path, { force: true })
  // The mode has to be right from the first moment; the socket is bound inside listen().
  const umask = process.umask(0o177)
  try {
    await new Promise<void>((settle, reject) => {
      server.once('error', (error) => reject(new Error(`Cannot listen on ${path}: ${error.message}.`)))
      server.listen({ path, backlog: BACKLOG }, settle)
      process.umask(umask)
    })
  } finally {
    process.umask(umask)
  }
}

async function close(server: ControlServer): Promise<void> {
  const closed = new Promise((settle) => server.close(settle))
  server.closeAllConnections()
  await closed
}
