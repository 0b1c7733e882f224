// The versions of Node that Berth runs with. Loaded before everything else, by any Node that knows ES modules.

/** From here on Node runs what the sources are written in; Berth is tested with 24. */
const OLDEST: readonly [number, number] = [22, 18]

/** What to tell the operator of a Node that is too old; undefined: it is not. */
export function nodeTooOld(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return undefined
  return (
    `Berth needs Node 24, and this is Node ${version}.\n` +
    'In a checkout, npm ci installs Node 24 beside the other dependencies, and npm run -s berth -- <command> uses it.'
  )
}
