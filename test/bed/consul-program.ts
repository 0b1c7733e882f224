// The program of Consul: that of this machine, or that of a Debian package, which is not installed.

import { debianProgram } from './debian-program.ts'

/** The last release of Debian that has it; later ones of Consul are not free software. */
const SUITE = 'bullseye'

/** Found in PATH, in the cache, or fetched. */
export function consulProgram(cache: string): Promise<string> {
  return debianProgram(cache, { program: 'consul', name: 'consul', suite: SUITE, made: [process.arch, SUITE] })
}
