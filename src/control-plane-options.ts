// What a control plane is started with, and what whoever started it has of it.

import type { Logger } from 'pino'

import type { View } from './api/view.ts'
import type { ConfigFile } from './config/file.ts'
import type { ConfigText } from './config/load.ts'
import type { Problem } from './model/problem.ts'

export interface ControlPlaneOptions {
  readonly home: string
  readonly cache: string
  /** The file to serve and watch; undefined: the text alone, as with the quickstart. */
  readonly file: ConfigFile | undefined
  readonly text: ConfigText
  readonly env: NodeJS.ProcessEnv
  readonly version: string
  readonly log: Logger
  /** A line for people while something takes long. */
  readonly progress: (line: string) => void
  /** Problems that were not there before, for people. */
  readonly problem: (problem: Problem) => void
  /** Ends the start early. */
  readonly signal: AbortSignal
}

export interface ControlPlane {
  readonly view: View
  /** Resolves when Envoy serves every configured service. Rejects when the control plane stops before. */
  readonly ready: Promise<void>
  /** Drains and ends everything. Resolves when nothing is left. */
  stop(): Promise<void>
}
