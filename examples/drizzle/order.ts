import { z } from 'zod';

export const Order = z.object({ id: z.string(), item: z.string(), pieces: z.int().positive() });
export type Order = z.infer<typeof Order>;
