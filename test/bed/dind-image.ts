// The image docker:dind out of the engine kit. Its entry point does what the real one does where the server's
// certificates were put in place beforehand, and refuses to start where they were not.

import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { EngineKit } from './engine-kit.ts'
import { fingerprint, makeFolder } from './folders.ts'
import { BASE_RECIPE, copyProgram, fillBase, type Image } from './image.ts'

/** The name that Berth asks for by default. */
export const DIND_IMAGE = 'docker:dind'

const RECIPE = readFileSync(import.meta.filename, 'utf8')

const PROGRAMS = [
  'dockerd',
  'docker-proxy',
  'docker-init',
  'docker',
  'containerd',
  'containerd-shim-runc-v2',
  'runc',
] as const

const ENTRY_POINT = `#!/bin/sh
set -eu
# Something else than options of dockerd is run as it is.
if [ $# -gt 0 ] && [ "\${1#-}" = "$1" ]; then exec "$@"; fi
server=\${DOCKER_TLS_CERTDIR:-}/server
for part in ca cert key; do
  [ -s "$server/$part.pem" ] || { echo "there is no $server/$part.pem" >&2; exit 1; }
done
[ ! -e "$DOCKER_TLS_CERTDIR/ca/key.pem" ] || { echo "the key of the authority does not belong here" >&2; exit 1; }
# Of one that was killed.
rm -f /run/docker.pid /run/docker/containerd/containerd.pid
exec docker-init -- dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2376 \\
  --tlsverify --tlscacert="$server/ca.pem" --tlscert="$server/cert.pem" --tlskey="$server/key.pem" "$@"
`

/** The spelling of this command in the real image's busybox, for that of another build; see also its shell below. */
const NC = '#!/bin/sh\nshift\nexec busybox nc -ll "$@"\n'

/** The image has no iptables, and the servers in it need no network. */
const DAEMON = { iptables: false, ip6tables: false, 'ip-masq': false }

export function dindImage(kit: EngineKit): Image {
  return {
    tag: DIND_IMAGE,
    key: fingerprint(BASE_RECIPE, RECIPE, kit.key),
    fill: async (root) => {
      await fillBase(root, kit)
      const bin = makeFolder(join(root, 'usr/local/bin'))
      for (const program of PROGRAMS) await copyProgram(join(kit.bin, program), join(bin, program), root)
      // That of busybox would take its own commands before all others.
      rmSync(join(root, 'bin/sh'))
      await copyProgram('/bin/dash', join(root, 'bin/sh'), root)
      // runc's libraries are in the kit, which is not where the loader looks.
      cpSync(join(kit.bin, '../lib'), join(root, 'usr/lib'), { recursive: true })
      writeFileSync(join(bin, 'dockerd-entrypoint.sh'), ENTRY_POINT, { mode: 0o755 })
      writeFileSync(join(bin, 'nc'), NC, { mode: 0o755 })
      writeFileSync(join(makeFolder(join(root, 'etc/docker')), 'daemon.json'), JSON.stringify(DAEMON))
      for (const folder of ['var/lib/docker', 'certs']) makeFolder(join(root, folder))
      symlinkSync('/run', join(root, 'var/run'))
    },
    config: [
      'STOPSIGNAL SIGTERM',
      'ENV DOCKER_TLS_CERTDIR=/certs',
      'VOLUME /var/lib/docker',
      'EXPOSE 2375 2376',
      'ENTRYPOINT ["dockerd-entrypoint.sh"]',
    ],
  }
}
