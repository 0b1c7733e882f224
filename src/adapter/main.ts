// The adapter program: one specification on stdin, two sockets, one line on descriptor 3, exit code 0 after a drain.

import { closeSync, openSync, writeSync } from 'node:fs'

import { CONTAINMENT_VARIABLE, SPEC_BYTES, type AdapterReady, type AdapterSpec } from './spec.ts'
import { startAdapter } from './adapter.ts'
import { DEFAULT_BOUNDS } from './bounds.ts'
import { findContainment, type Containment } from './containment.ts'
import { createLog } from './log.ts'

const READY_FD = 3

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
  // A spare has nothing else to do while it waits, and a slot's first request does not have to wait for this.
  const containment = toldContainment() ?? findContainment(process.env['PATH'])
  const text = await readStdin()
  // A spare that nobody needs any more (slots/spare-adapters.ts).
  if (text === '') return
  const spec = readSpec(text)
  if (spec.logFile !== undefined) logTo(spec.logFile)
  const adapter = await startAdapter(spec, log, DEFAULT_BOUNDS, containment)
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

/** Whoever starts many adapters finds it out once: four processes each time are a third of an adapter's start [measured]. */
function toldContainment(): Promise<Containment> | undefined {
  const told = process.env[CONTAINMENT_VARIABLE]
  return told === undefined ? undefined : Promise.resolve(JSON.parse(told) as Containment)
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

/**
 * Everything that is written here or by Node itself goes to this file. Node has no dup2(2), and needs none: a file gets the
 * lowest descriptor that is free, and nothing else is opened meanwhile.
 */
function logTo(file: string): void {
  for (const descriptor of [1, 2]) {
    closeSync(descriptor)
    if (openSync(file, 'a', 0o600) !== descriptor) throw new Error(`Descriptor ${descriptor} was taken.`)
  }
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
