// Envoy before 1.40 drops what it is sent on an on-demand stream for every name but the first that it asked for there
// (envoyproxy/envoy issue 30305; seen with 1.38.3 and 1.39.3). It does ask, so the stream still says who waits; the
// cluster itself comes on the aggregated stream, whose wildcard takes any.

const FIXED = 40

/** @param version such as `1.38.3`; undefined: nobody knows, so it is a new one */
export function takesFirstOnly(version: string | undefined): boolean {
  const [major, minor] = (version ?? '').split('.').map(Number)
  return major === 1 && minor !== undefined && minor < FIXED
}
