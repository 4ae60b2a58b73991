// The scenario with what AssemblyScript's modules import unless they are told otherwise: `env.abort`, and `env.seed` for
// `Math.random`.

export * from "./scenario";

const random = Math.random();

export function proxy_on_vm_start(id: u32, size: u32): u32 {
  return random >= 0 && random < 1 ? 1 : 0;
}
