// Prints the first state of the engine behind a socket; a process of its own, so that it can run with fewer rights.

import { watchEngine } from '../../src/docker/provider.ts'

const abort = new AbortController()
const { value } = await watchEngine({ name: 'host', socketPath: process.argv[2]! }, {}, abort.signal).next()
abort.abort()
process.stdout.write(JSON.stringify(value))
