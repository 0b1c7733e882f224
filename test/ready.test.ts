import { EventEmitter, once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

import { expect, test } from 'vitest'

import { whenReady } from '../src/ready.ts'

test('a Berth whose ports do not answer says so, once, and is ready when they do', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')

  const events = new EventEmitter<{ changed: [] }>()
  const told: string[] = []
  let synced = false
  let looks = 0
  const ports = (): number[] => {
    looks++
    return [port]
  }
  const tell = (line: string): void => void told.push(line)
  const options = { isReady: () => synced, ports, host: '127.0.0.1', events, tell }
  let isDone = false
  const done = whenReady(options, new AbortController().signal).then(() => (isDone = true))
  synced = true
  events.emit('changed')
  await expect.poll(() => looks, { timeout: 15_000 }).toBeGreaterThan(4)
  expect(told).toEqual([expect.stringContaining(`nothing answers at 127.0.0.1:${port}`)])
  expect(isDone).toBe(false)
  server.listen(port, '127.0.0.1')
  await done
  server.close()
})
