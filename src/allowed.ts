// Which paths of this machine deployments may name, as far as only the file system and the other services can tell; what
// the text alone tells is in config/manifest.ts.

import { realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

import { isAllowed, type AllowedPaths } from './config/manifest.ts'
import { FILES_FOLDER } from './docker/dind-definition.ts'
import type { Problem } from './model/problem.ts'
import type { Service } from './model/service.ts'

/** @param file the configuration; undefined: there is none, and so nothing beside it */
export function allowedPaths(
  file: { readonly path: string; readonly folder: string } | undefined,
  home: string,
): AllowedPaths {
  if (!file) return { roots: [FILES_FOLDER], own: [home] }
  return { roots: [file.folder, FILES_FOLDER], own: [home, file.path] }
}

/** A symbolic link in an allowed folder must not lead out of it. */
export function outsideByLinks(service: Service, { roots, own }: AllowedPaths): Problem[] {
  const allowed = { roots: roots.map(real), own: own.map(real) }
  return pathsOf(service)
    .filter((path) => !isAllowed(real(path), allowed))
    .map((path) => ({
      about: `service ${service.name}`,
      where: service.where,
      message: `${path} leads out of the allowed folders by a symbolic link.`,
      remedy: 'Name the folder itself in berth.yaml, or use one without links.',
    }))
}

/**
 * What is in a folder that a container may write to can become a link to anywhere, after it was looked at: neither the
 * engine, which follows it when it mounts, nor the reading of a secret would notice.
 */
export function* changeable(deployed: readonly Service[], others: readonly Service[]): Generator<Problem> {
  const all = [...others, ...deployed]
  const writers = new Map(all.flatMap((service) => writable(service).map((folder) => [folder, service])))
  for (const service of all) {
    // The operator's own may do more.
    if (service.source === 'config') continue
    for (const path of pathsOf(service)) {
      for (const folder of above(path)) {
        const writer = writers.get(folder)
        const about = [service, writer].find((each) => each !== undefined && deployed.includes(each))
        if (!writer || !about) continue
        yield {
          about: `service ${about.name}`,
          where: about.where,
          message: `The container of service ${writer.name} may write to ${folder}, so ${path} of service ${service.name} could become a link to anywhere.`,
          remedy: `Write \`:ro\` behind the volume of ${writer.name}, or name a folder that is not in another one.`,
        }
      }
    }
  }
}

/** The folders that a path is in. */
function* above(path: string): Generator<string> {
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) yield folder
}

/** What a container gets of this machine or of its engine's. */
function pathsOf({ backend }: Service): string[] {
  if (backend.kind !== 'image') return []
  const folders = backend.volumes.map(({ source }) => source)
  const files = Object.values(backend.secrets).flatMap((secret) => (secret.from === 'file' ? [secret.path] : []))
  return [...folders, ...files].filter((path) => path.startsWith('/'))
}

function writable({ backend }: Service): string[] {
  if (backend.kind !== 'image') return []
  return backend.volumes.flatMap(({ source, readOnly }) => (readOnly || !source.startsWith('/') ? [] : [source]))
}

/** The path without symbolic links; what is not there yet would be where its folder is. */
function real(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    const folder = dirname(path)
    return folder === path ? path : join(real(folder), basename(path))
  }
}
