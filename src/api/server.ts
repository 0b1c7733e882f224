// Serves the control API on its port.

import { createAdaptorServer } from '@hono/node-server'
import type { Hono } from 'hono'

import { bracketed, callAddress } from '../model/address.ts'
import { OperatorError } from '../model/operator-error.ts'

export interface ApiServer {
  /** Such as `http://127.0.0.1:18080`. */
  readonly url: string
  /** Resolves when no connection is left; those that are open are cut. */
  close(): Promise<void>
}

/** Throws OperatorError when the port cannot be had. Port 0 takes any that is free. */
export async function serveApi(app: Hono, { host, port }: { host: string; port: number }): Promise<ApiServer> {
  const server = createAdaptorServer({ fetch: app.fetch })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(refusal(error, host, port)))
    server.listen(port, host, resolve)
  })
  const address = server.address()
  const bound = typeof address === 'object' && address ? address.port : port
  return {
    url: `http://${bracketed(callAddress(host))}:${bound}`,
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()))
        if ('closeAllConnections' in server) server.closeAllConnections()
      }),
  }
}

function refusal(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const reason = {
    EADDRINUSE: `Port ${port} on ${host} is taken by another program. Stop it, or set ports.api in the configuration.`,
    EACCES: `Port ${port} on ${host} needs privileges. Set ports.api in the configuration to one above 1023.`,
    EADDRNOTAVAIL: `${host} is not an address of this machine. Correct bind in the configuration.`,
  }[error.code ?? '']
  return reason === undefined ? error : new OperatorError(`The control API cannot start: ${reason}`, { cause: error })
}
