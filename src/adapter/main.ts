// The adapter program: one specification on stdin, two sockets, one line on descriptor 3, exit code 0 after a drain.

import { closeSync, writeSync } from 'node:fs'

import type { AdapterReady, AdapterSpec } from './spec.ts'
import { startAdapter } from './adapter.ts'
import { createLog } from './log.ts'

const READY_FD = 3
const SPEC_BYTES = 1024 * 1024

const log = createLog((line) => process.stdout.write(line))
// The log's reader may be gone; the traffic goes on.
process.stdout.on('error', () => undefined)
process.stderr.on('error', () => undefined)

// It was started on its own and ends on its own: the loss of a terminal is nothing to it.
process.on('SIGHUP', () => undefined)

main().catch((error: unknown) => {
  log('error', error instanceof Error ? error.message : String(error))
  process.exit(1)
})

async function main(): Promise<void> {
  const spec = readSpec(await readStdin())
  const adapter = await startAdapter(spec, log)
  let asked = false
  const stop = () => {
    adapter.drain(asked ? 0 : adapter.slot.bounds.drainMs)
    asked = true
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  tellReady()
  log('info', 'ready', { service: spec.service, group: spec.group })
  await adapter.ended
  log('info', 'ended')
  process.exit(0)
}

function readSpec(text: string): AdapterSpec {
  let spec: Partial<AdapterSpec>
  try {
    spec = JSON.parse(text) as Partial<AdapterSpec>
  } catch {
    // The text itself may hold secrets.
    throw new Error('The specification on stdin is not valid JSON. Give one AdapterSpec document.')
  }
  const missing = (
    ['service', 'group', 'isolation', 'era', 'limits', 'scale', 'httpSocket', 'controlSocket', 'server'] as const
  ).filter((name) => spec[name] === undefined)
  if (missing.length > 0) throw new Error(`The specification on stdin lacks ${missing.join(', ')}.`)
  return spec as AdapterSpec
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > SPEC_BYTES) throw new Error(`The specification on stdin is larger than ${SPEC_BYTES} bytes.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Descriptor 3 is there when the control plane wants to know; by hand it is not. */
function tellReady(): void {
  const ready: AdapterReady = { ready: true, pid: process.pid }
  try {
    writeSync(READY_FD, `${JSON.stringify(ready)}\n`)
    closeSync(READY_FD)
  } catch {
    log('info', 'nobody waits on descriptor 3')
  }
}
