// Which paths of this machine deployments may name, as far as only the file system and the other services can tell; what
// the text alone tells is in config/manifest.ts.

import { realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

import { isAllowed, isWithin, type AllowedPaths } from './config/manifest.ts'
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
  for (const service of deployed) {
    const about = `service ${service.name}`
    for (const path of pathsOf(service))
      for (const writer of all)
        for (const folder of writable(writer).filter((each) => isBelow(path, each)))
          yield {
            about,
            where: service.where,
            message: `${path} is in ${folder}, where the container of service ${writer.name} may put links to anywhere.`,
            remedy: `Name ${folder} itself, one outside it, or write \`:ro\` behind that of ${writer.name}.`,
          }
    for (const other of others.filter((each) => each.source === 'deployed'))
      for (const path of pathsOf(other))
        for (const folder of writable(service).filter((each) => isBelow(path, each)))
          yield {
            about,
            where: service.where,
            message: `${folder} may be written to, and service ${other.name} has ${path} in it, which could become a link to anywhere.`,
            remedy: 'Write `:ro` behind it, or name another folder.',
          }
  }
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

function isBelow(path: string, folder: string): boolean {
  return path !== folder && isWithin(path, folder)
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
