"""Muon: momentum whose step on a matrix is made orthogonal (Newton-Schulz), with AdamW for everything else.

The step's size follows AdamW's (0.2 sqrt(larger side), as in Moonlight), so one learning rate serves both.
"""

import torch
import torch.distributed as dist


def orthogonal(g, rounds=5):
    """The nearest (semi-)orthogonal matrix, roughly: the quintic iteration in bf16."""
    wide = g.shape[0] < g.shape[1]
    x = (g.T if wide else g).bfloat16().contiguous()
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        a = x.T @ x
        x = torch.addmm(x, x, a.mul(-4.7750).addmm_(a, a, alpha=2.0315), beta=3.4445)
    return (x.T if wide else x).float()


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; convolutions count as (out, in x height x width).

    Workers (torch.distributed) share the work: each makes its part of the steps, a sum brings them together.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        workers = dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if workers else (0, 1)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            flat = torch.zeros(sum(p.numel() for p in params))
            for i, (p, o) in enumerate(zip(params, flat.split([p.numel() for p in params]))):
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                state["m"].lerp_(p.grad, 1 - group["momentum"])
                if i % world == rank:
                    g = p.grad.lerp(state["m"], group["momentum"]).reshape(p.shape[0], -1)
                    o.copy_(orthogonal(g).flatten() * max(g.shape) ** 0.5)
            if workers:
                dist.all_reduce(flat)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            parts = [o.view(p.shape) for p, o in zip(params, flat.split([p.numel() for p in params]))]
            torch._foreach_add_(params, parts, alpha=-0.2 * group["lr"])
