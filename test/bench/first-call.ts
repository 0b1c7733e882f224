// What on-demand start costs: the first call of a client to a service that has no process yet, through Envoy, against the
// server's own start; both from the request to the answer of `initialize`. One line per server.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

import { SPARE_ADAPTERS } from '../../src/slots/spare-adapters.ts'
import { Berth, eventually, initialize, reference } from '../e2e/berth.ts'

const ROUNDS = 10
const SERVERS = {
  everything: reference('everything'),
  memory: reference('memory'),
  // Almost nothing to start: what is left is Berth's own part.
  minimal: [
    process.execPath,
    '-e',
    `require('node:readline').createInterface({input: process.stdin}).on('line', (line) => {
       const {id, params} = JSON.parse(line)
       if (id !== undefined) console.log(JSON.stringify({jsonrpc: '2.0', id, result: {protocolVersion: params.protocolVersion, capabilities: {}, serverInfo: {name: 'minimal', version: '1'}}}))
     })`,
  ],
}

async function direct([program, ...args]: readonly string[]): Promise<number> {
  const began = performance.now()
  const child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'ignore'] })
  const answered = once(createInterface({ input: child.stdout }), 'line')
  child.stdin.write(`${JSON.stringify(initialize())}\n`)
  await answered
  const took = performance.now() - began
  child.kill('SIGKILL')
  await once(child, 'exit')
  return took
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
}

const clients = Array.from({ length: ROUNDS }, (_, i) => `client-${i}`)
await using berth = await Berth.start({
  services: Object.fromEntries(Object.entries(SERVERS).map(([name, command]) => [name, { command }])),
  clients: Object.fromEntries(clients.flatMap((name) => [name, `${name}-cold`]).map((name) => [name, {}])),
})

console.log(
  `first call, median of ${ROUNDS}, ms: server alone | through Berth, a spare adapter waits | Berth's part | ` +
    `none waits | Berth's part | second session`,
)
for (const [name, command] of Object.entries(SERVERS)) {
  const { port } = await berth.service(name)
  const call = async (client: string): Promise<number> => {
    const began = performance.now()
    const { status } = await berth.post(port!, initialize(), { client })
    if (status !== 200) throw new Error(`${name}: ${status}`)
    return performance.now() - began
  }
  const alone: number[] = []
  const first: number[] = []
  const cold: number[] = []
  const second: number[] = []
  // In turn, so that a machine that changes its speed changes it for all.
  for (const client of clients) {
    alone.push(await direct(command))
    await eventually(() => {
      if (berth.spares().length < SPARE_ADAPTERS) throw new Error('no spare adapter')
    })
    first.push(await call(client))
    second.push(await call(client))
    for (const pid of berth.spares()) process.kill(pid, 'SIGKILL')
    cold.push(await call(`${client}-cold`))
  }
  const [a, f, c, s] = [median(alone), median(first), median(cold), median(second)]
  console.log([name.padEnd(10), ...[a, f, f - a, c, c - a, s].map((ms) => ms.toFixed(0))].join(' | '))
}
