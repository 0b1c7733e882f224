// An OpenTelemetry collector: what Envoy sends over OTLP/gRPC, decoded with the descriptors of that Envoy.

import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js'

import { createCodec } from '../../src/xds/codec.ts'
import { testDescriptors } from '../fixtures/envoy.ts'

const PACKAGE = 'opentelemetry.proto.collector'

/** Of each export, in order, as JSON. */
export interface Collector extends AsyncDisposable {
  readonly url: string
  readonly traces: readonly string[]
  readonly logs: readonly string[]
}

export async function collect(): Promise<Collector> {
  const codec = createCodec(await testDescriptors())
  const traces: string[] = []
  const logs: string[] = []
  const server = new Server()
  const kinds = [
    { name: 'trace', type: 'Trace', received: traces },
    { name: 'logs', type: 'Logs', received: logs },
  ]
  for (const { name, type, received } of kinds) {
    const decode = (bytes: Buffer): string =>
      JSON.stringify(codec.decode(`/${PACKAGE}.${name}.v1.Export${type}ServiceRequest`, bytes))
    const definition = {
      path: `/${PACKAGE}.${name}.v1.${type}Service/Export`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (text: string) => Buffer.from(text),
      requestDeserialize: decode,
      responseSerialize: () => Buffer.alloc(0),
      responseDeserialize: () => ({}),
    }
    server.addService(
      { Export: definition },
      {
        Export: (call: ServerUnaryCall<string, object>, answer: sendUnaryData<object>) => {
          received.push(call.request)
          answer(null, {})
        },
      },
    )
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    )
  })
  return {
    url: `http://127.0.0.1:${port}`,
    traces,
    logs,
    async [Symbol.asyncDispose]() {
      server.forceShutdown()
    },
  }
}
