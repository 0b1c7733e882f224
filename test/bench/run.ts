// `npm run bench -- [name…] [--quick] [--json] [--write]`: the named benchmarks one after the other, without a name all of them.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const NAMES = ['first-call', 'throughput', 'endurance', 'adapter-profile', 'containers', 'limits', 'xds', 'costs']

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('-'))
const options = process.argv.slice(2).filter((argument) => argument.startsWith('-'))
const unknown = wanted.filter((name) => !NAMES.includes(name))
// Ctrl-C reaches the benchmark, too, which then gives everything back; this one waits for it.
let interrupted = false
process.on('SIGINT', () => (interrupted = true))

if (unknown.length > 0) {
  process.stderr.write(`There is no benchmark ${unknown.join(', ')}. There are: ${NAMES.join(', ')}.\n`)
  process.exitCode = 2
} else {
  for (const name of wanted.length > 0 ? wanted : NAMES) {
    if (interrupted) break
    process.stderr.write(`\n${name}\n`)
    const child = spawn(process.execPath, [join(import.meta.dirname, `${name}.ts`), ...options], { stdio: 'inherit' })
    const [code] = (await once(child, 'exit')) as [number | null]
    if (code !== 0) process.exitCode = code ?? 1
  }
}
