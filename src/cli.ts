#!/usr/bin/env node
// The program `berth`. Everything else is loaded only once this Node is known to be able to.

import { nodeTooOld } from './commands/supported-node.ts'

const tooOld = nodeTooOld(process.versions.node)
if (tooOld === undefined) {
  const { main } = await import('./commands/main.ts')
  process.exitCode = await main()
} else {
  process.stderr.write(`${tooOld}\n`)
  process.exitCode = 1
}
