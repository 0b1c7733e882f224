// Locks between runs that share a cache: whoever listens on an abstract Unix socket holds the lock. The kernel releases
// it when the holder dies, so no lock is ever stale.

import { connect, createServer, type Server, type Socket } from 'node:net'

/** The abstract socket of a lock; names are per cache. */
export function lockAddress(name: string): string {
  return `\0berth-bed-${name}`
}

/** Runs `work` alone among all processes that use the same name; waits for the present holder to finish or die. */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const release = await lock(name)
  try {
    return await work()
  } finally {
    release()
  }
}

/** Takes a lock until the returned function is called, or this process ends. */
export async function lock(name: string): Promise<() => void> {
  const waiters = new Set<Socket>()
  const server = createServer((waiter) => {
    waiter.on('error', () => waiter.destroy())
    waiters.add(waiter)
  })
  while (!(await tryListen(server, lockAddress(name)))) await endOfHolder(lockAddress(name))
  return () => {
    server.close()
    for (const waiter of waiters) waiter.destroy()
  }
}

/** True when the server listens now, false when another process does. */
export function tryListen(server: Pick<Server, 'once' | 'off' | 'listen'>, address: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      if (error.code === 'EADDRINUSE') resolve(false)
      else reject(error)
    }
    server.once('error', failed)
    server.listen(address, () => {
      server.off('error', failed)
      resolve(true)
    })
  })
}

/** Resolves when the connection to the holder ends, which it never does before the lock is free. */
function endOfHolder(address: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(address)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => resolve())
  })
}
