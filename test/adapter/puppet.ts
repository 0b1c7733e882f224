// Stdio servers that are real processes and whose words are the test's: each one only carries lines between its pipes and
// a socket of the test. They start in milliseconds, can be killed, and are found in /proc by a mark in their environment.

import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'

import type { LocalServer } from '../../src/adapter/spec.ts'
import { local } from './support.ts'

/** Tells its process id as it is outside of its namespace, which is that of the mounted /proc. */
// Without --norc bash takes a stdin that is a socket for rshd and reads a .bashrc.
const CARRY = `exec 3<>/dev/tcp/127.0.0.1/$1
read -r pid rest </proc/self/stat
echo "$pid" >&3
cat <&3 &
exec cat >&3`

/** What one process says and hears. */
export interface Puppet {
  readonly number: number
  readonly pid: number
  /** It has ended, or is about to. */
  readonly ended: boolean
  say(line: string): void
  /** Ends it as the kernel does when memory is short. */
  kill(): void
}

/** The mind of a process. */
export interface Mind {
  heard(line: string): void
  ended(): void
}

export interface Puppets {
  readonly server: LocalServer
  readonly all: readonly Puppet[]
  /** Processes that are there, whatever became of their sockets. */
  left(): number[]
  close(): Promise<void>
}

export async function puppets(mindOf: (puppet: Puppet) => Mind): Promise<Puppets> {
  const mark = randomUUID()
  const all: Puppet[] = []
  const listener = createServer((socket) => attach(socket, all, mindOf))
  await new Promise<void>((settle) => void listener.listen(0, '127.0.0.1', settle))
  const { port } = listener.address() as AddressInfo
  return {
    server: local(['bash', '--norc', '-c', CARRY, 'puppet', String(port)], { PUPPET: mark }),
    all,
    left: () => processesWith(`PUPPET=${mark}`),
    close: () => new Promise((settle) => void listener.close(() => settle())),
  }
}

function attach(socket: Socket, all: Puppet[], mindOf: (puppet: Puppet) => Mind): void {
  let rest = ''
  let mind: Mind | undefined
  let ended = false
  const begin = (pid: number) => {
    const puppet: Puppet = {
      number: all.length,
      pid,
      get ended() {
        return ended
      },
      say: (line) => void socket.write(`${line}\n`),
      kill: () => {
        ended = true
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has gone by itself.
        }
      },
    }
    all.push(puppet)
    mind = mindOf(puppet)
  }
  socket.setEncoding('utf8')
  socket.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()!
    for (const line of lines) {
      if (mind) mind.heard(line)
      else begin(Number(line))
    }
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    ended = true
    mind?.ended()
  })
}

function processesWith(entry: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(entry)
      } catch {
        return false
      }
    })
    .map(Number)
}
