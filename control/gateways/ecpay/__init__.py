"""ECPay (綠界科技), all-in-one checkout. Pure but for `client`."""
