// The shape of a ready service: what it is, what it needs, and how its image is made.

import type { Isolation } from '../model/service.ts'

export interface CatalogEntry {
  /** A DNS label, unique in the catalog: also the name of the image and of the service in examples. */
  readonly name: string
  /** A few words for the list. */
  readonly title: string
  /** One to three sentences: what its tools do, and what to know before using it. */
  readonly description: string
  readonly package: CatalogPackage
  /** The program of the package that speaks MCP on stdio. */
  readonly program: string
  /** What follows the program; the image has them as its command, so `command` in berth.yaml replaces them all. */
  readonly arguments: readonly Argument[]
  readonly settings: readonly Setting[]
  readonly secrets: readonly NeededSecret[]
  /** Debian packages that its image has beside the base image's. */
  readonly systemPackages: readonly string[]
  readonly network: { readonly mode: 'none' | 'bridge'; readonly why: string }
  /** Folders beside `/tmp`, which every container may write to. */
  readonly folders: readonly Folder[]
  readonly isolation: { readonly advice: Isolation; readonly why: string }
  /** Megabytes (proportional set size, all processes) after `tools/list`, measured on x86-64. */
  readonly memoryMB: number
}

export interface CatalogPackage {
  readonly registry: 'npm' | 'pypi'
  readonly name: string
  /** Exact: what was installed and started when the entry was written. */
  readonly version: string
  /** Further requirements with exact versions, where the package's own would take what it does not run with. */
  readonly beside: readonly string[]
}

export interface Argument {
  readonly text: string
  /** Said of arguments that a user may want to replace. */
  readonly about?: string
}

/** An environment variable that is no secret. */
export interface Setting {
  readonly name: string
  /** Set in the image; with `example`, only the user can know it. */
  readonly value: string
  readonly kind: 'default' | 'example'
  readonly about: string
}

export interface NeededSecret {
  /** The environment variable that the server reads. */
  readonly name: string
  readonly about: string
  /** False: it works without, with less. */
  readonly required: boolean
}

export interface Folder {
  /** Inside the container. */
  readonly path: string
  readonly access: 'ro' | 'rw'
  readonly about: string
}
