import { spawn } from 'node:child_process'
import { once } from 'node:events'

import { expect, test } from 'vitest'

import { treeUsage } from '../../src/slots/process-usage.ts'

test('the processes of a process, and those of theirs; not itself', async () => {
  const busy =
    'for (const end = Date.now() + 300; Date.now() < end; );console.log(process.pid);setInterval(() => {}, 60000)'
  const parent = spawn('sh', ['-c', `"$0" -e "$1" & wait`, process.execPath, busy], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let child: number | undefined
  try {
    const [said] = (await once(parent.stdout, 'data')) as [Buffer]
    child = Number(said.toString())
    const usage = (await treeUsage([parent.pid!])).get(parent.pid!)!
    expect(usage.cpuSeconds).toBeGreaterThanOrEqual(0.1)
    expect(usage.memoryBytes).toBeGreaterThan(20e6)
    const own = (await treeUsage([process.pid])).get(process.pid)!
    expect(own.memoryBytes).toBeGreaterThanOrEqual(usage.memoryBytes)
    expect(await treeUsage([2 ** 22 + 1])).toEqual(new Map())
  } finally {
    if (child !== undefined) process.kill(child, 'SIGKILL')
    await once(parent, 'exit')
  }
})
