// Rotates the key of a state folder's secrets again and again until it is killed; a line on stdout for each time.

import { join } from 'node:path'

import { KeyFile } from '../../src/store/encryption-keys.ts'
import { SecretStore } from '../../src/store/secret-store.ts'
import { openStore } from '../../src/store/store.ts'

const home = process.argv[2]!
const secrets = new SecretStore(openStore(join(home, 'berth.db')).secrets, new KeyFile(home), [])
for (;;) {
  secrets.rotate()
  process.stdout.write('rotated\n')
}
