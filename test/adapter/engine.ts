// A small Engine API with one container: a real process that outlives its attachments, real upgrades, real frames.

import { spawn, type ChildProcess } from 'node:child_process'
import { createServer } from 'node:http'
import type { Socket } from 'node:net'

export interface FakeEngine {
  readonly socketPath: string
  /** What the inspection says; a test may change it. */
  readonly state: {
    running: boolean
    tty: boolean
    openStdin: boolean
    startedAt: string
    hang: boolean
    garbled: boolean
  }
  /** Requests that came, as `METHOD path`. */
  readonly requests: string[]
  /** Ends all attachments, as an engine does that restarts. */
  detachAll(): void
  /** Ends the container's process; its attachments end with it. */
  kill(): void
  /** Starts the container again, as a new life. */
  restart(): void
  stop(): Promise<void>
}

const STDOUT = 1
const STDERR = 2

function frame(kind: number, payload: Buffer): Buffer {
  const header = Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0])
  header.writeUInt32BE(payload.length, 4)
  return Buffer.concat([header, payload])
}

export async function fakeEngine(socketPath: string, command: readonly string[]): Promise<FakeEngine> {
  const state = { running: true, tty: false, openStdin: true, startedAt: 'first', hang: false, garbled: false }
  const requests: string[] = []
  const attached = new Set<Socket>()
  let child: ChildProcess
  let exited: Promise<unknown>

  const begin = () => {
    const started = spawn(command[0]!, command.slice(1), { stdio: 'pipe' })
    child = started
    exited = new Promise((settle) => started.once('exit', settle))
    started.stdin.on('error', () => undefined)
    started.stdout.on('data', (chunk: Buffer) => attached.forEach((socket) => socket.write(frame(STDOUT, chunk))))
    started.stderr.on('data', (chunk: Buffer) => attached.forEach((socket) => socket.write(frame(STDERR, chunk))))
    started.once('exit', () => {
      if (child === started) state.running = false
      attached.forEach((socket) => socket.end())
    })
  }
  begin()

  const server = createServer((req, res) => {
    requests.push(`${req.method} ${req.url}`)
    if (state.hang) return
    const known = req.url?.startsWith('/containers/box/')
    res.writeHead(known ? 200 : 404, { 'content-type': 'application/json' })
    const { running, tty, openStdin, startedAt } = state
    const inspection = { State: { Running: running, StartedAt: startedAt }, Config: { Tty: tty, OpenStdin: openStdin } }
    res.end(state.garbled ? '<html>' : JSON.stringify(known ? inspection : { message: 'No such container' }))
  })
  server.on('upgrade', (req, socket: Socket) => {
    requests.push(`${req.method} ${req.url}`)
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
    attached.add(socket)
    socket.on('data', (chunk: Buffer) => child.stdin!.write(chunk))
    socket.on('error', () => undefined)
    socket.on('close', () => attached.delete(socket))
  })
  await new Promise<void>((settle) => void server.listen(socketPath, settle))

  return {
    socketPath,
    state,
    requests,
    detachAll: () => attached.forEach((socket) => socket.destroy()),
    kill: () => void child.kill('SIGKILL'),
    restart: () => {
      child.kill('SIGKILL')
      begin()
      state.running = true
      state.startedAt += ' again'
    },
    stop: async () => {
      child.kill('SIGKILL')
      await exited
      server.closeAllConnections()
      attached.forEach((socket) => socket.destroy())
      await new Promise((settle) => server.close(settle))
    },
  }
}
