// What the parts of the OpenAPI document are made of, so that each part can stand beside its routes.

/** By openapi.ts. */
export interface OpenApiWords {
  readonly operation: (operationId: string, summary: string, responses: object) => object
  readonly json: (description: string, schema: object) => object
  readonly failure: (description: string) => object
  readonly body: (name: string) => object
  readonly reference: (name: string) => object
  readonly listOf: (name: string) => object
}
