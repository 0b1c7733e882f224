// Ports of this machine: whether one can be bound, and whether somebody accepts on it.

import { connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** Whether a port of a local address is free; false only when somebody has it. */
export function canBind(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    // Any other error says nothing about this port: Envoy will say what is wrong when it binds.
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'EADDRINUSE' && error.code !== 'EACCES'),
    )
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/**
 * Resolves when a port is free, else with false at the deadline. A process that was killed may hold its ports for a moment
 * longer than it can be seen to run: until the last of its threads has ended.
 */
export async function becomesFree(host: string, port: number, deadlineMs: number): Promise<boolean> {
  const until = Date.now() + deadlineMs
  while (!(await canBind(host, port))) {
    if (Date.now() >= until) return false
    await delay(20)
  }
  return true
}

/** Resolves when a connection to the port is accepted, else with false at the deadline. */
export async function accepts(host: string, port: number, deadlineMs: number): Promise<boolean> {
  const until = Date.now() + deadlineMs
  while (!(await connects(host, port))) {
    if (Date.now() >= until) return false
    await delay(10)
  }
  return true
}

function connects(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
