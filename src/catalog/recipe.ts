// How the image of a ready service is made: its Dockerfile and what the build gets beside it. Pure.

import type { CatalogEntry } from './entry.ts'

export interface RecipeOptions {
  /** Replaces the base image; it must have what the usual one has (`baseOf`), and the entry's system packages. */
  readonly base?: string
  /**
   * The package and all that it requires were installed beforehand and come with the context as the folder `server`, so
   * that the build needs no network. Without: the build installs them from their registry.
   */
  readonly vendored?: boolean
}

/** A file or a folder of the build context. */
export type ContextPart =
  | { readonly path: string; readonly text: string }
  | { readonly path: string; readonly folder: string }

/** Where the package is in the image, as `npm install --prefix` or `pip install --target` lays it out. */
const SERVER = '/opt/server'
/** The user of every container that Berth starts (design §8). */
const USER = '1001:1001'

/** The tag of the entry's image, `berth/<name>:<version>`. */
export function imageOf({ name, package: { version } }: CatalogEntry): string {
  return `berth/${name}:${version}`
}

/** The image that the entry's one is built upon. PyPI packages were verified with Python 3.11. */
export function baseOf({ package: { registry } }: CatalogEntry): string {
  return registry === 'npm' ? 'node:24-slim' : 'python:3.11-slim'
}

/** What is installed, as the registry's client takes it: the package first, all with exact versions. */
export function requirementsOf({ package: { registry, name, version, beside } }: CatalogEntry): readonly string[] {
  return [registry === 'npm' ? `${name}@${version}` : `${name}==${version}`, ...beside]
}

/**
 * The command that installs the package and all that it requires into a folder. Neither client may run the packages' own
 * scripts: nothing in the catalog needs them.
 */
export function installCommandOf(entry: CatalogEntry, folder: string): readonly [program: string, ...args: string[]] {
  const requirements = requirementsOf(entry)
  return entry.package.registry === 'npm'
    ? [
        'npm',
        'install',
        '--prefix',
        folder,
        '--omit=dev',
        '--ignore-scripts',
        '--no-audit',
        '--no-fund',
        ...requirements,
      ]
    : ['pip', 'install', '--target', folder, '--only-binary=:all:', ...requirements]
}

/** The whole command of a container: the program through its interpreter, because its first line may name another. */
export function entryPointOf({ package: { registry }, program }: CatalogEntry, server: string = SERVER): string[] {
  return registry === 'npm'
    ? ['node', `${server}/node_modules/.bin/${program}`]
    : ['python3', `${server}/bin/${program}`]
}

/** The environment variables that the image has for the entry's sake. */
export function defaultsOf({ settings }: CatalogEntry): Readonly<Record<string, string>> {
  const defaults = settings.filter(({ kind }) => kind === 'default')
  return Object.fromEntries(defaults.map(({ name, value }) => [name, value]))
}

export function dockerfileOf(
  entry: CatalogEntry,
  { base = baseOf(entry), vendored = false }: RecipeOptions = {},
): string {
  const { name, version, registry } = entry.package
  const environment = {
    ...(registry === 'npm' ? { NODE_ENV: 'production' } : { PYTHONPATH: SERVER, PYTHONUNBUFFERED: '1' }),
    // The only folder that can be written to in a container with a read-only root.
    HOME: '/tmp',
    ...defaultsOf(entry),
  }
  return [
    `# ${entry.title}: ${name} ${version} (${registry}).`,
    `FROM ${base}`,
    ...Object.entries(environment).map(([name, value]) => `ENV ${name}=${JSON.stringify(value)}`),
    ...(vendored ? [`COPY server ${SERVER}`] : install(entry)),
    // A named volume that is mounted here for the first time gets this owner.
    `RUN mkdir -p /data && chown ${USER} /data`,
    'WORKDIR /data',
    `USER ${USER}`,
    `ENTRYPOINT ${JSON.stringify(entryPointOf(entry))}`,
    `CMD ${JSON.stringify(entry.arguments.map(({ text }) => text))}`,
    '',
  ].join('\n')
}

function install(entry: CatalogEntry): readonly string[] {
  const { systemPackages } = entry
  const system =
    'RUN apt-get update' +
    ` && apt-get install --yes --no-install-recommends ${systemPackages.join(' ')}` +
    ' && rm -rf /var/lib/apt/lists/*'
  const command = installCommandOf(entry, SERVER).join(' ')
  const server =
    entry.package.registry === 'npm'
      ? `RUN ${command} --cache /tmp/npm && rm -rf /tmp/npm`
      : `RUN ${command} --no-cache-dir`
  return [...(systemPackages.length > 0 ? [system] : []), server]
}

/**
 * What the engine is sent for a build.
 *
 * @param vendored a folder with the installed package, laid out as at `SERVER`
 */
export function contextOf(
  entry: CatalogEntry,
  { base, vendored }: { readonly base?: string; readonly vendored?: string } = {},
): readonly ContextPart[] {
  const options = { ...(base !== undefined && { base }), vendored: vendored !== undefined }
  const dockerfile = { path: 'Dockerfile', text: dockerfileOf(entry, options) }
  return vendored === undefined ? [dockerfile] : [dockerfile, { path: 'server', folder: vendored }]
}
