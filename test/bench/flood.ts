// A client that asks more often than it may, as a process of its own, so that what it costs is not paid by who measures:
// `flood.ts <port> <client> <requests a second> <connections>`. It begins and stops by lines on stdin, and tells at the end
// what it was answered.

import { constants, setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'

import { Connection } from './connection.ts'
import { exponential } from './figures.ts'
import { modernCall } from './session.ts'

const [port = 0, , perSecond = 1, connections = 1] = process.argv.slice(2).map(Number)
const text = modernCall(port, process.argv[3]!)
const statuses: Record<number, number> = {}
let running = false

// Elsewhere it would not need a processor of this machine.
setPriority(constants.priority.PRIORITY_LOW)

async function ask(): Promise<void> {
  let connection = await Connection.open({ port })
  const everyMs = (1000 * connections) / perSecond
  for (let next = performance.now(); ; next += exponential(everyMs)) {
    await delay(Math.max(0, next - performance.now()))
    if (!running) {
      next = performance.now()
      continue
    }
    const { status, head } = await connection.exchange(text)
    statuses[status] = (statuses[status] ?? 0) + 1
    if (!/\r\nconnection: close/i.test(head)) continue
    connection.close()
    connection = await Connection.open({ port })
  }
}

for (let i = 0; i < connections; i++) void ask()
for await (const line of createInterface({ input: process.stdin })) running = line === 'begin'
process.stdout.write(JSON.stringify(statuses))
process.exit(0)
